"""Read the resize, centre crop and normalisation from a transform made of torchvision's parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from .preprocessing import INTERPOLATIONS, Preprocessing

#: Steps that only change the type and range of an RGB picture's values.
_CONVERSIONS = frozenset(
    {
        *("ToTensor", "PILToTensor", "ToImage", "ToImageTensor", "ConvertImageDtype", "ToDtype"),
        *("ConvertDtype", "ToPureTensor", "RGB", "Identity", "MaybeToTensor", "MaybePILToTensor"),
        *("MaybeConvertMode", "_convert_to_rgb"),
    }
)
_LIBRARIES = ("torchvision.transforms", "timm.data.transforms", "open_clip.transform", "torch.nn")


def steps_of(function: object) -> Preprocessing | None:
    """Read torchvision's ``Resize``, ``CenterCrop`` and ``Normalize`` from a transform.

    Returns:
        The steps; None if there is any other step, or if their order differs.
    """
    resize: tuple[int, int] | None = None
    size: tuple[int, int] | None = None
    fit, interpolation, mean, std, channels = "keep", "bilinear", (0.0,), (1.0,), 3
    order: list[str] = []
    for part in _parts(function):
        kind = _kind(part)
        if kind == "ImageClassification" and not order:
            return preset_steps(part)
        if kind in _CONVERSIONS:
            continue
        if kind == "Resize" and part.size is not None and part.max_size is None:
            fit, resize = _resize(part.size)
            interpolation = getattr(part.interpolation, "value", part.interpolation)
        elif kind == "CenterCrop":
            size = (int(part.size[0]), int(part.size[1]))
        elif kind == "Grayscale" and part.num_output_channels == 1:
            channels = 1
        elif kind == "Normalize":
            mean, std = (
                tuple(torch.as_tensor(v, dtype=torch.float64).view(-1).tolist())
                for v in (part.mean, part.std)
            )
        else:
            return None
        order.append(kind)
    ranks = [("Resize", "CenterCrop", "Normalize").index(k) for k in order if k != "Grayscale"]
    if ranks != sorted(set(ranks)) or interpolation not in INTERPOLATIONS:
        return None
    try:
        return Preprocessing(
            size=resize if size is None and fit == "stretch" else size,
            resize=resize,
            fit=fit,
            mean=mean,
            std=std,
            channels=channels,
            interpolation=interpolation,
        )
    except ValueError:
        return None


def preset_steps(preset: Any) -> Preprocessing:
    """Read the steps of torchvision's preset for image classification."""
    crop, resize = preset.crop_size[0], preset.resize_size[0]
    return Preprocessing(
        size=(crop, crop),
        resize=(resize, resize),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
    )


def _parts(function: Any) -> Iterator[Any]:
    """Yield the steps of nested compositions."""
    if _kind(function) == "Compose":
        for part in function.transforms:
            yield from _parts(part)
    elif _kind(function) == "Sequential":
        for part in function:
            yield from _parts(part)
    else:
        yield function


def _kind(part: Any) -> str:
    """Return the name of a library's class or function; "" for anything else."""
    named = part if hasattr(part, "__qualname__") else type(part)
    known = named.__module__.startswith(_LIBRARIES)
    return str(named.__qualname__) if known else ""


def _resize(size: Any) -> tuple[str, tuple[int, int]]:
    """Return the ``fit`` that corresponds to torchvision's ``Resize``, and (H, W)."""
    sides = [int(size)] if isinstance(size, int) else [int(side) for side in size]
    return ("cover" if len(sides) == 1 else "stretch"), (sides[0], sides[-1])
