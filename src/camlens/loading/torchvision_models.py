"""Load models of torchvision by name, with the preprocessing and class names of their weights."""

from __future__ import annotations

import importlib
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import weights as weight_files
from .factories import near
from .loaded_model import LoadedModel
from .transform_steps import preset_steps

#: What stands for the names of ImageNet's classes.
IMAGENET = "imagenet"


def load_torchvision(
    name: str, weights: str | None = None, *, trusted_pickle: bool = False
) -> LoadedModel:
    """Load a classification model of torchvision.

    Args:
        name: torchvision's name, such as ``"resnet50"``.
        weights: None or ``"default"`` for the best published weights; the name of others, such as
            ``"IMAGENET1K_V1"``; ``"none"`` for random weights; or a file.
        trusted_pickle: see :func:`camlens.loading.load_model`.

    Raises:
        ImportError: torchvision is not installed.
        LookupError: torchvision has no such model or weights.
        OSError: weights could not be downloaded, or a file is missing.
        ValueError: a file is damaged, does not fit, or could run code.
    """
    models = _models(f"torchvision:{name}")
    known = models.list_models(module=models)
    if name not in known:
        others = "; it is for another task: wrap it in a module that returns (N, K) scores"
        raise LookupError(
            f"torchvision has no classification model {name!r}"
            f"{others if name in models.list_models() else near(name, known)}"
        )
    entries = models.get_model_weights(name)
    if weights is None or weights == weight_files.DEFAULT:
        return _published(models, name, entries.DEFAULT)
    if weights in entries.__members__:
        return _published(models, name, entries[weights])
    preprocessing = preset_steps(entries.DEFAULT.transforms())
    if weights == weight_files.NONE:
        return LoadedModel(model=_built(models, name), preprocessing=preprocessing)
    if not weight_files.is_file_name(weights):
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


def imagenet_classes() -> tuple[str, ...]:
    """Return the names of ImageNet's 1000 classes in torchvision's words, without a download.

    Raises:
        ImportError: torchvision is not installed.
    """
    return tuple(_models("classes=imagenet").ResNet18_Weights.DEFAULT.meta["categories"])


def _models(what: str) -> Any:
    try:
        return importlib.import_module("torchvision.models")
    except ImportError as error:
        raise ImportError(
            f'{what} needs torchvision: pip install "camlens[vision]" ({error})'
        ) from error


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
            f"{file} is damaged, or contains more than tensors: remove it, and download {entry.url}"
        ) from error
    except (OSError, RuntimeError) as error:  # RuntimeError: wrong checksum
        raise OSError(
            f"could not get the weights {entry.name} of {name} ({error}): download {entry.url} "
            f"on a machine with a network and put the file at {file}, or pass a file of weights "
            "(weights=, --weights)"
        ) from error
    return LoadedModel(
        model=model.eval(),
        preprocessing=preset_steps(entry.transforms()),
        classes=tuple(entry.meta["categories"]),
    )
