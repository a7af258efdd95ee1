"""Load a model by name from a library, a user's function or a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from . import exported_programs
from . import weights as weight_files
from .factories import make
from .hf_models import load_hf
from .loaded_model import LoadedModel
from .open_clip_models import load_open_clip
from .preprocessing import Preprocessing
from .timm_models import load_timm
from .torchvision_models import IMAGENET, imagenet_classes, load_torchvision
from .transforms import Transform

__all__ = ["LoadedModel", "load_model"]

_LIBRARIES = {"torchvision": load_torchvision, "timm": load_timm, "hf": load_hf}


def load_model(
    spec: str,
    weights: str | None = None,
    *,
    classes: Sequence[str] | None = None,
    trusted_pickle: bool = False,
) -> LoadedModel:
    """Load a model by name, with its preprocessing and class names.

    Args:
        spec: ``torchvision:NAME``, a classification model of torchvision; ``timm:NAME``, a model of
            timm; ``hf:NAME`` or ``hf:FOLDER``, an image classifier of transformers;
            ``open_clip:NAME``, ``open_clip:NAME/WEIGHTS`` or ``open_clip:FOLDER``, a CLIP model of
            open_clip as a zero-shot classifier of ``classes``; ``package.module:function``, a
            function that is called without arguments and returns a module, (module, transform) or
            (module, transform, classes), where the transform is a callable from an RGB PIL image
            to (C, H, W) floating point (the current folder is searched first); or, if trusted,
            ``FILE.pt2``, an exported program, and ``FILE.pt`` or ``.pth``, a pickled module.
        weights: a ``.safetensors`` file, or a ``.pt`` or ``.pth`` file that contains only tensors.
            For models of a library also ``"default"`` (like None), ``"none"`` for random weights,
            or the name of published weights, such as ``"IMAGENET1K_V1"`` of torchvision or
            ``"a1_in1k"`` of timm, which have their own preprocessing and classes.
        classes: names of the outputs, in order; they replace the model's own class names.
            ``"imagenet"`` stands for ImageNet's 1000 names, which a file of weights does not have.
        trusted_pickle: whether to load files that can run any code in them: exported programs, and
            pickles of objects other than tensors.

    Returns:
        The model. If neither a library nor the function defines the preprocessing, pictures keep
        their size (for an exported program they get the size it was exported for), are scaled to
        [0, 1] without normalisation, and become grey if the model's first convolution has one input
        channel; ``preprocessing_known`` is then False.

    Raises:
        ImportError: the library, or one that the user's module imports, is missing.
        LookupError: a name is unknown; the message suggests similar ones.
        OSError: a file is missing, or weights could not be downloaded.
        TypeError: the function or its transform returned another type.
        ValueError: a file is damaged, does not fit, or could run code; the function or its
            transform failed; the number of classes differs from the model's; or classes for
            open_clip are missing or named twice.

    Example:
        >>> loaded = load_model("torch.nn:Identity")
        >>> loaded.model, loaded.preprocessing.size
        (Identity(), None)
    """
    if classes == IMAGENET:
        classes = imagenet_classes()
    elif isinstance(classes, str):
        raise ValueError(f'expected classes as a list of names or "{IMAGENET}", got {classes!r}')
    library, _, name = spec.partition(":")
    if library == "open_clip":
        return load_open_clip(name, weights, classes=classes, trusted_pickle=trusted_pickle)
    if library in _LIBRARIES:
        loaded = _LIBRARIES[library](name, weights, trusted_pickle=trusted_pickle)
    elif Path(spec).suffix == ".pt2":
        loaded = _exported(spec, weights, trusted_pickle)
    elif Path(spec).suffix in weight_files.PICKLES:
        loaded = _unprepared(_pickled(Path(spec), trusted_pickle))
        _fill(loaded.model, spec, weights, trusted_pickle)
    else:
        loaded = _made(spec, weights, trusted_pickle)
    if classes is None:
        return loaded
    known = loaded.classes
    if known is not None and len(known) != len(classes):
        raise ValueError(
            f"expected {len(known)} class names for {spec}, got {len(classes)}: name each of its "
            "outputs (classes=, --classes FILE), or pass no names"
        )
    return dataclasses.replace(loaded, classes=tuple(classes))


def _made(spec: str, weights: str | None, trusted_pickle: bool) -> LoadedModel:
    """Load a model from a user's function."""
    made = make(spec)
    _fill(made.model, spec, weights, trusted_pickle)
    loaded = dataclasses.replace(_unprepared(made.model), classes=made.classes)
    if made.transform is None:
        return loaded
    how = made.transform
    if not isinstance(how, Preprocessing):
        how = Transform.of(how, spec)
    return dataclasses.replace(loaded, preprocessing=how, preprocessing_known=True)


def _exported(spec: str, weights: str | None, trusted_pickle: bool) -> LoadedModel:
    model, shape = exported_programs.load_program(spec, trusted_pickle=trusted_pickle)
    _fill(model, spec, weights, trusted_pickle)
    loaded = _unprepared(model)
    if len(shape) == 4:
        how = Preprocessing(
            size=(shape[2], shape[3]) if min(shape[2:]) > 0 else None,
            channels=1 if shape[1] == 1 else 3,
        )
        loaded = dataclasses.replace(loaded, preprocessing=how)
    return dataclasses.replace(loaded, batch=shape[0] or None if shape else None)


def _unprepared(model: nn.Module) -> LoadedModel:
    """Wrap a model whose preprocessing is unknown."""
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    channels = 1 if first is not None and first.in_channels == 1 else 3
    return LoadedModel(
        model=model.eval(),
        preprocessing=Preprocessing(channels=channels),
        preprocessing_known=False,
    )


def _fill(model: nn.Module, spec: str, weights: str | None, trusted_pickle: bool) -> None:
    if weights in (None, weight_files.NONE):
        return
    if weights == weight_files.DEFAULT or not weight_files.is_file_name(weights):
        raise LookupError(
            f"only models of torchvision, timm, hf and open_clip have named weights, got "
            f"{weights!r} for {spec}: pass a file, such as weights.safetensors"
        )
    weight_files.fill(model, weight_files.read(weights, trusted_pickle=trusted_pickle), weights)


def _pickled(path: Path, trusted_pickle: bool) -> nn.Module:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: expected a model")
    if not trusted_pickle:
        raise ValueError(
            f"{path} would have to be unpickled, which can run any code in it: pass "
            "package.module:function and its weights as safetensors, or, if you trust the author "
            "of the file, trusted_pickle=True (--unsafe-pickle)"
        )
    model = weight_files.unpickle(path, trusted_pickle=True)
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            f"expected {path} to contain a module, got {type(model).__name__}: pass a state dict "
            "as weights, together with a model; a TorchScript module does not support hooks"
        )
    return model
