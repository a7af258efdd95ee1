"""Load a model by name: from torchvision, timm, the user's function, or a file."""

from __future__ import annotations

import dataclasses
import importlib
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import exported_programs
from . import weights as weight_files
from .factories import make, near
from .preprocessing import Preprocessing
from .timm_models import load_timm

__all__ = ["LoadedModel", "load_model"]

#: Values of ``weights`` that are no file: random ones, and torchvision's default.
NONE, DEFAULT = "none", "default"

_TORCHVISION, _TIMM = "torchvision:", "timm:"


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class LoadedModel:
    """A model with its preprocessing.

    Attributes:
        model: in evaluation mode, in main memory.
        preprocessing: from a picture to the model's input.
        preprocessing_known: whether it is the one that the model was trained with, as its library
            says; else it is a guess.
        classes: names of the outputs; None where unknown.
        batch: the only batch size that the model accepts; None for any.
    """

    model: nn.Module
    preprocessing: Preprocessing
    preprocessing_known: bool = True
    classes: tuple[str, ...] | None = None
    batch: int | None = None


def load_model(
    spec: str, weights: str | None = None, *, trusted_pickle: bool = False
) -> LoadedModel:
    """Load a model.

    Args:
        spec: ``torchvision:NAME``, a classification model of torchvision; ``timm:NAME``, one of
            timm;
            ``package.module:function``, a function that is called without arguments and returns a
            module (the current folder is searched first); or, if trusted, ``FILE.pt2``, an
            exported program, and ``FILE.pt`` or ``.pth``, a pickled module.
        weights: a ``.safetensors`` file, or a ``.pt`` or ``.pth`` file that contains only tensors.
            For models of torchvision and timm also ``"default"`` (as None), ``"none"`` for random
            weights, or the name of an entry, such as ``"IMAGENET1K_V1"`` or ``"a1_in1k"``, which
            has its own preprocessing and classes.
        trusted_pickle: whether to load files that can run any code their author put in: exported
            programs, and pickles of other objects than tensors.

    Returns:
        The model. Unless torchvision or timm define the preprocessing, pictures keep their size
        (an exported program's: the size it was exported for), are in [0, 1] without normalisation,
        and grey if the model's first convolution has one input channel.

    Raises:
        ImportError: torchvision, or a library that the user's module imports, is missing.
        LookupError: a name is unknown; the message suggests similar ones.
        OSError: a file is missing, or weights could not be downloaded.
        TypeError: the function returned no module.
        ValueError: a file is damaged, does not fit, or could run code; or the function failed.

    Example:
        >>> loaded = load_model("torch.nn:Identity")
        >>> loaded.model, loaded.preprocessing.size
        (Identity(), None)
    """
    if spec.startswith(_TORCHVISION):
        return _torchvision(spec.removeprefix(_TORCHVISION), weights, trusted_pickle)
    if spec.startswith(_TIMM):
        name = spec.removeprefix(_TIMM)
        model, how, classes = load_timm(name, weights, trusted_pickle=trusted_pickle)
        return LoadedModel(model=model, preprocessing=how, classes=classes)
    suffix = Path(spec).suffix
    shape: tuple[int, ...] = ()
    if suffix == ".pt2":
        model, shape = exported_programs.load_program(spec, trusted_pickle=trusted_pickle)
    elif suffix in weight_files.PICKLES:
        model = _pickled(Path(spec), trusted_pickle)
    else:
        model = make(spec)
    if weights not in (None, NONE):
        if weights == DEFAULT or not Path(weights).suffix:
            raise LookupError(
                f"only torchvision's models have weights by name, got {weights!r} for {spec}: "
                "name a file, such as weights.safetensors"
            )
        state = weight_files.read(weights, trusted_pickle=trusted_pickle)
        weight_files.fill(model, state, weights)
    size = (shape[2], shape[3]) if len(shape) == 4 and min(shape[2:]) > 0 else None
    return LoadedModel(
        model=model.eval(),
        preprocessing=Preprocessing(size=size, channels=_channels(model, shape)),
        preprocessing_known=False,
        batch=shape[0] or None if shape else None,
    )


def _torchvision(name: str, weights: str | None, trusted_pickle: bool) -> LoadedModel:
    try:
        models = importlib.import_module("torchvision.models")
    except ImportError as error:
        raise ImportError(f'needs torchvision: pip install "camlens[vision]" ({error})') from error
    known = models.list_models(module=models)
    if name not in known:
        others = "; it is no classification model: wrap it in a function that returns (N, K) scores"
        raise LookupError(
            f"torchvision has no classification model {name!r}"
            f"{others if name in models.list_models() else near(name, known)}"
        )
    entries = models.get_model_weights(name)
    if weights is None or weights == DEFAULT:
        return _published(models, name, entries.DEFAULT)
    if weights in entries.__members__:
        return _published(models, name, entries[weights])
    preprocessing = _of_transforms(entries.DEFAULT.transforms())
    if weights == NONE:
        return LoadedModel(model=_built(models, name), preprocessing=preprocessing)
    if not Path(weights).suffix:
        raise LookupError(
            f"{name} has no weights {weights!r}{near(weights, list(entries.__members__))}; "
            f"expected a file, none, default, or one of {', '.join(entries.__members__)}"
        )
    state = weight_files.read(weights, trusted_pickle=trusted_pickle)
    with torch.device("meta"):
        untrained = _built(models, name)
    count = len(entries.DEFAULT.meta["categories"])
    model = _built(
        models, name, num_classes=weight_files.classes_of(state, untrained.state_dict(), count)
    )
    weight_files.fill(model, state, weights)
    return LoadedModel(model=model, preprocessing=preprocessing)


def _built(models: Any, name: str, **options: Any) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about slow initialisation of random weights
        model: nn.Module = models.get_model(name, weights=None, **options)
    return model.eval()


def _published(models: Any, name: str, entry: Any) -> LoadedModel:
    file = Path(torch.hub.get_dir(), "checkpoints", entry.url.rpartition("/")[2])
    try:
        with weight_files.tensors_only():  # torchvision would load any pickle
            model = models.get_model(name, weights=entry)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{file} is damaged, or holds more than tensors: remove it, and download {entry.url}"
        ) from error
    except (OSError, RuntimeError) as error:  # RuntimeError: wrong checksum
        raise OSError(
            f"could not get the weights {entry.name} of {name} ({error}): download {entry.url} "
            f"where there is a network and put the file at {file}, or name a file of weights "
            "(--weights FILE)"
        ) from error
    return LoadedModel(
        model=model.eval(),
        preprocessing=_of_transforms(entry.transforms()),
        classes=tuple(entry.meta["categories"]),
    )


def _of_transforms(transforms: Any) -> Preprocessing:
    crop, resize = transforms.crop_size[0], transforms.resize_size[0]
    return Preprocessing(
        size=(crop, crop),
        resize=(resize, resize),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
    )


def _pickled(path: Path, trusted_pickle: bool) -> nn.Module:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: expected a model")
    if not trusted_pickle:
        raise ValueError(
            f"{path} would have to be unpickled, which runs whatever code is in it: give "
            "package.module:function and its weights as safetensors, or, if you trust whoever "
            "made the file, say so with trusted_pickle=True (--unsafe-pickle)"
        )
    model = weight_files.unpickle(path, trusted_pickle=True)
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            f"expected {path} to hold a module, got {type(model).__name__}: a state dict is given "
            "as weights, beside the model; a TorchScript module takes no hooks"
        )
    return model


def _channels(model: nn.Module, shape: tuple[int, ...]) -> int:
    if len(shape) == 4:
        return 1 if shape[1] == 1 else 3
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    return 1 if first is not None and first.in_channels == 1 else 3
