"""Load models of timm by name, with the preprocessing and class names of their weights."""

from __future__ import annotations

import importlib
from typing import Any

from . import weights as weight_files
from .factories import near
from .loaded_model import LoadedModel
from .preprocessing import INTERPOLATIONS, Preprocessing
from .transforms import Transform


def load_timm(
    name: str, weights: str | None = None, *, trusted_pickle: bool = False
) -> LoadedModel:
    """Load a model of timm.

    Args:
        name: timm's name, such as ``"resnet50"`` or ``"resnet50.a1_in1k"``.
        weights: None or ``"default"`` for the default weights; the name of other published weights,
            such as ``"a1_in1k"``; ``"none"`` for random weights; or a file.
        trusted_pickle: see :func:`camlens.loading.load_model`.

    Raises:
        ImportError: timm is not installed.
        LookupError: timm has no such model.
        OSError: weights could not be downloaded, or a file is missing.
        ValueError: a file does not fit, or the model's input does not have 1 or 3 channels.
    """
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise ImportError(
            f'timm:{name} needs timm: pip install "camlens[timm]" ({error})'
        ) from error
    if not timm.is_model(name):
        bare = name.partition(".")[0]
        raise LookupError(f"timm has no model {name!r}{near(bare, timm.list_models())}")
    file = weights is not None and weight_files.is_file_name(weights)
    published = not file and weights != weight_files.NONE
    own = weights in (None, weight_files.DEFAULT)
    full = f"{name}.{weights}" if published and not own else name
    if not file:
        model = _created(timm, full, pretrained=published)
    else:
        state = weight_files.read(str(weights), trusted_pickle=trusted_pickle)
        untrained = _created(timm, full, pretrained=False)
        count = weight_files.classes_of(state, untrained.state_dict(), untrained.num_classes)
        model = _created(timm, full, pretrained=False, num_classes=count)
        weight_files.fill(model, state, str(weights))
    return LoadedModel(
        model=model.eval(),
        preprocessing=_preprocessing(timm, model, name),
        classes=_classes(timm, model) if published else None,
    )


def _created(timm: Any, name: str, *, pretrained: bool, **options: Any) -> Any:
    try:
        with weight_files.tensors_only():
            return timm.create_model(name, pretrained=pretrained, **options)
    except RuntimeError as error:  # timm raises it for unknown weights
        raise LookupError(f"timm has no such weights: {error}") from error
    except OSError as error:
        raise OSError(
            f"could not get the weights of timm's {name} ({error}): download them on a machine "
            "with a network and pass the file (--weights FILE)"
        ) from error


def _preprocessing(timm: Any, model: Any, name: str) -> Preprocessing | Transform:
    facts = timm.data.resolve_model_data_config(model)
    channels, h, w = facts["input_size"]
    mode, interpolation = facts["crop_mode"], facts["interpolation"]
    if channels not in (1, 3):
        raise ValueError(
            f"expected a model with inputs of 1 or 3 channels, got {channels} of "
            f"timm:{name}: write a function that wraps it in a module for such pictures"
        )
    if mode not in ("center", "squash") or interpolation not in INTERPOLATIONS:
        transform = timm.data.create_transform(**facts, is_training=False)
        return Transform.of(transform, f"timm:{name}")
    return Preprocessing(
        size=(h, w),
        resize=(int(h / facts["crop_pct"]), int(w / facts["crop_pct"])),
        fit="cover" if mode == "center" else "stretch",
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
