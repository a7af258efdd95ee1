"""Models of timm by name, with the preprocessing and class names of their weights."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from torch import nn

from . import weights as weight_files
from .factories import near
from .preprocessing import INTERPOLATIONS, Preprocessing

Loaded = tuple[nn.Module, Preprocessing, tuple[str, ...] | None]


def load_timm(name: str, weights: str | None, *, trusted_pickle: bool) -> Loaded:
    """Return a model of timm in evaluation mode, its preprocessing, and its classes' names.

    Args:
        name: as timm has it, such as ``"resnet50"`` or ``"resnet50.a1_in1k"``.
        weights: None or ``"default"`` for the published ones, the name of others of timm, such as
            ``"a1_in1k"``; ``"none"`` for random ones; or a file.
        trusted_pickle: see :func:`camlens.loading.load_model`.

    Raises:
        ImportError: timm is not installed.
        LookupError: it has no such model.
        OSError: weights could not be downloaded, or a file is missing.
        ValueError: a file does not fit, or the model's preprocessing is of a kind that is unknown.
    """
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise ImportError(f"needs timm: pip install timm ({error})") from error
    if not timm.is_model(name):
        bare = name.partition(".")[0]
        raise LookupError(f"timm has no model {name!r}{near(bare, timm.list_models())}")
    file = weights is not None and bool(Path(weights).suffix)
    published = not file and weights != "none"
    full = f"{name}.{weights}" if published and weights not in (None, "default") else name
    if not file:
        model = _created(timm, full, pretrained=published)
    else:
        state = weight_files.read(str(weights), trusted_pickle=trusted_pickle)
        untrained = _created(timm, full, pretrained=False)
        count = weight_files.classes_of(state, untrained.state_dict(), untrained.num_classes)
        model = _created(timm, full, pretrained=False, num_classes=count)
        weight_files.fill(model, state, str(weights))
    return model.eval(), _preprocessing(timm, model), _classes(timm, model) if published else None


def _created(timm: Any, name: str, *, pretrained: bool, **options: Any) -> Any:
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except RuntimeError as error:  # timm's own error for weights that there are not
        raise LookupError(f"timm has no such weights: {error}") from error
    except OSError as error:
        raise OSError(
            f"could not get the weights of timm's {name} ({error}): download them where there is a "
            "network and name the file (--weights FILE)"
        ) from error


def _preprocessing(timm: Any, model: Any) -> Preprocessing:
    facts = timm.data.resolve_model_data_config(model)
    channels, *size = facts["input_size"]
    mode, interpolation = facts["crop_mode"], facts["interpolation"]
    if mode != "center" or interpolation not in INTERPOLATIONS or channels not in (1, 3):
        raise ValueError(
            "expected a model of timm that takes the middle of pictures of 1 or 3 channels, "
            f"resized with one of {INTERPOLATIONS}, got {channels} channels, {mode!r} and "
            f"{interpolation!r}: write a function that makes the model and the image"
        )
    return Preprocessing(
        size=(size[0], size[1]),
        resize=(int(size[0] / facts["crop_pct"]), int(size[1] / facts["crop_pct"])),
        mean=tuple(facts["mean"]),
        std=tuple(facts["std"]),
        channels=channels,
        interpolation=interpolation,
    )


def _classes(timm: Any, model: Any) -> tuple[str, ...] | None:
    subset = timm.data.infer_imagenet_subset(model)
    if not subset:
        return None
    info = timm.data.ImageNetInfo(subset)
    return tuple(info.index_to_description(index) for index in range(info.num_classes()))
