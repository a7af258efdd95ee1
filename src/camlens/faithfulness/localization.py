"""Localization: whether a map's heat lies where the object is. The model is not run."""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor, nn

from ..explanation import Explanation
from ..regions.masks import Regions
from .metric.inputs import MetricInputs
from .metric.options import MetricOptions
from .metric.pixel_order import ranks
from .metric.result import MetricResult

# Near an image's edge a resized map is constant but for rounding, which must not pick a maximum.
_ROUNDING = 1e-5


def pointing_game(
    model: nn.Module | None,
    images: Tensor,
    explanation: Explanation | Tensor,
    where: Regions | Tensor,
    *,
    tolerance: float = 15,
    **options: Unpack[MetricOptions],
) -> MetricResult:
    """Ask whether the map's maximum points at the object.

    A hit is a maximum within ``tolerance`` pixels of the object, as TorchRay's code has it
    (facebookresearch/TorchRay, torchray/benchmark/pointing_game.py) for the game of Zhang et al.,
    "Top-down Neural Attention by Excitation Backprop", ECCV 2016 (arXiv:1608.00507), section 4.1.
    Of several pixels that share the maximum the value is the share that hit, so that a constant map
    has the hit rate of a random pixel. The published score is the mean over classes of each class'
    mean: :func:`class_mean`.

    Args:
        model: not run; may be None.
        images: (N, C, *size).
        explanation: an explanation of them, or maps (N, K, *size) of any origin.
        where: the objects: ``Regions`` with one region for all targets (``regions.pick("name")``)
            or K regions, one for each; masks (N, *size) or (N, K, *size), boolean or in [0, 1]; or
            boxes (N, 4) of left, top, right and bottom edge in pixels, as
            :meth:`camlens.regions.Regions.from_boxes` takes them. A pixel belongs to an object if
            at least half of it does.
        tolerance: pixels; 15 is TorchRay's, for photographs with sides of some 500 pixels.
        options: see :class:`MetricOptions`.

    Returns:
        Values in [0, 1], higher is better; NaN where there is no object: a mask is zero, or a box
        is empty or outside the image.

    Raises:
        TypeError: something is of the wrong type.
        ValueError: something does not fit, see :class:`MetricInputs`, a mask is out of [0, 1], or
            a box's edges are in the wrong order or not finite.

    Example:
        >>> maps = torch.tensor([[[[0.0, 1.0], [0.0, 0.0]]]])
        >>> masks = torch.tensor([[[False, False], [True, True]]])
        >>> images = torch.zeros(1, 3, 2, 2)
        >>> [
        ...     pointing_game(None, images, maps, masks, tolerance=t, floors=()).mean
        ...     for t in (0, 1)
        ... ]
        [0.0, 1.0]
    """
    inputs = MetricInputs("pointing_game", None, images, explanation, **options)
    if not tolerance >= 0 or not math.isfinite(tolerance):
        raise ValueError(f"expected a tolerance of at least 0 pixels, got {tolerance!r}")
    objects = _masks(where, inputs.maps) >= 0.5
    near = _widened(objects, tolerance)

    def values_of(maps: Tensor) -> Tensor:
        flat = maps.flatten(2)
        least, most = flat.aminmax(dim=2, keepdim=True)
        peaks = flat >= most - _ROUNDING * (most - least)
        hits = (peaks & near.flatten(2)).sum(dim=2) / peaks.sum(dim=2)
        return hits.where(objects.flatten(2).any(dim=2), torch.nan)

    return inputs.result(values_of, better="higher")


def energy_pointing_game(
    model: nn.Module | None,
    images: Tensor,
    explanation: Explanation | Tensor,
    where: Regions | Tensor,
    **options: Unpack[MetricOptions],
) -> MetricResult:
    """Measure the share of a map's heat that lies on the object.

    Wang et al., "Score-CAM", CVPR Workshops 2020 (arXiv:1910.01279), section 4.3. Negative values
    count as no heat. A map without heat says as much of all pixels: its share is the object's share
    of the area.

    Args:
        model: not run; may be None.
        images: (N, C, *size).
        explanation: as :func:`pointing_game` takes it, and likewise what follows.
        where: the objects; a soft mask counts by its values.
        options: see :class:`MetricOptions`.

    Returns:
        Values in [0, 1], higher is better; NaN where there is no object.

    Raises:
        TypeError: something is of the wrong type.
        ValueError: something does not fit.

    Example:
        >>> maps, masks = torch.tensor([[[[3.0, 1.0]]]]), torch.tensor([[[True, False]]])
        >>> energy_pointing_game(None, torch.zeros(1, 3, 1, 2), maps, masks, floors=()).mean
        0.75
    """
    inputs = MetricInputs("energy_pointing_game", None, images, explanation, **options)
    objects = _masks(where, inputs.maps).flatten(2)

    def values_of(maps: Tensor) -> Tensor:
        heat = _heat(maps).flatten(2).double()  # a sum of float32 could be infinite
        share = (heat * objects).sum(dim=2) / heat.sum(dim=2)
        return share.where(objects.any(dim=2), torch.nan)

    return inputs.result(values_of, better="higher")


def intersection_over_union(
    model: nn.Module | None,
    images: Tensor,
    explanation: Explanation | Tensor,
    where: Regions | Tensor,
    **options: Unpack[MetricOptions],
) -> MetricResult:
    """Compare the object with as many of the map's pixels, those with the largest values.

    Intersection over union of two sets of equal area, so that no threshold has to be chosen. Pixels
    of equal value are in random order.

    Args:
        model: not run; may be None.
        images: (N, C, *size).
        explanation: as :func:`pointing_game` takes it, and likewise what follows.
        where: the objects; a pixel belongs to one if at least half of it does.
        options: see :class:`MetricOptions`.

    Returns:
        Values in [0, 1], higher is better; NaN where there is no object.

    Raises:
        TypeError: something is of the wrong type.
        ValueError: something does not fit.

    Example:
        >>> maps, masks = torch.tensor([[[[0.3, 0.2, 0.1]]]]), torch.tensor([[[True, False, True]]])
        >>> found = intersection_over_union(
        ...     None, torch.zeros(1, 3, 1, 3), maps, masks, floors=()
        ... )
        >>> round(found.mean, 3)
        0.333
    """
    inputs = MetricInputs("intersection_over_union", None, images, explanation, **options)
    objects = _masks(where, inputs.maps).flatten(2) >= 0.5
    area = objects.sum(dim=2, keepdim=True)

    def values_of(maps: Tensor) -> Tensor:
        marked = ranks(maps, inputs.seeds).flatten(2) < area
        both = (marked & objects).sum(dim=2)
        value = both / (2 * area.squeeze(2) - both).clamp(min=1)
        return value.where(objects.any(dim=2), torch.nan)

    return inputs.result(values_of, better="higher")


def class_mean(values: Tensor, classes: Tensor) -> float:
    """Return the mean over classes of each class' mean value, as the pointing game is published.

    Args:
        values: (N, K), see :class:`MetricResult`; NaN is left out.
        classes: (N, K) or (N,) class ids: of which class each is.

    Raises:
        TypeError: the classes are no integers.
        ValueError: the shapes do not fit, no value is known, or the class of one is not (-1).

    Example:
        >>> class_mean(torch.tensor([[1.0], [0.0], [1.0]]), torch.tensor([0, 0, 1]))
        0.75
    """
    classes = classes.unsqueeze(1) if classes.ndim == 1 else classes
    if (
        values.ndim != 2
        or len(classes) != len(values)
        or classes.shape[1] not in (1, *values.shape[1:])
    ):
        raise ValueError(
            f"expected values (N, K) and classes (N, K) or (N,), got {tuple(values.shape)} and "
            f"{tuple(classes.shape)}"
        )
    if classes.is_floating_point() or classes.dtype == torch.bool:
        raise TypeError(f"expected classes as integers, got {classes.dtype}")
    known = values.isfinite()
    if not known.any():
        raise ValueError("expected at least one known value, got NaN alone")
    numbers, own = classes.to(values.device).expand_as(values)[known].unique(return_inverse=True)
    if (numbers < 0).any():
        raise ValueError(
            f"expected class ids of at least 0, got {numbers.amin().item()}, which stands for an "
            "unknown class: leave those images out"
        )
    total = torch.zeros(len(numbers), dtype=torch.float64, device=values.device)
    total.index_add_(0, own, values[known].double())
    return float((total / own.bincount()).mean())


def _heat(maps: Tensor) -> Tensor:
    """Return the positive part of maps; one everywhere where a map has none."""
    heat = maps.clamp(min=0)
    return heat.where(heat.flatten(2).any(dim=2).view(*heat.shape[:2], *[1] * (heat.ndim - 2)), 1)


def _masks(where: Regions | Tensor, maps: Tensor) -> Tensor:
    """Return (N, K or 1, *size) float32 masks on the maps' device."""
    n, k, *size = maps.shape
    if isinstance(where, Regions):
        masks = where.masks
    elif isinstance(where, Tensor):
        masks = where.unsqueeze(1) if where.ndim == maps.ndim - 1 else where
        if where.shape == (n, 2 * len(size)) and list(where.shape[1:]) != size:
            masks = Regions.from_boxes(["object"], where.unsqueeze(1), size).masks
        if not (masks.is_floating_point() or masks.dtype == torch.bool):
            raise TypeError(f"expected boolean masks or values in [0, 1], got {masks.dtype}")
        if not ((masks >= 0) & (masks <= 1)).all():
            raise ValueError("expected masks within [0, 1], got other values or NaN")
    else:
        raise TypeError(f"expected Regions or masks, got {type(where).__name__}")
    fits = masks.ndim == maps.ndim and masks.shape[1] in (1, k) and list(masks.shape[2:]) == size
    if not fits or len(masks) not in (1, n) or (len(masks) != n and not isinstance(where, Regions)):
        raise ValueError(
            f"expected one mask, or one for each of {k} targets, of {n} images of {tuple(size)}, "
            f"got {tuple(masks.shape)}"
        )
    return masks.to(maps.device).float().expand(n, -1, *size)


def _widened(objects: Tensor, tolerance: float) -> Tensor:
    """Return the pixels whose centres lie within a distance of an object's: (N, K, *size) bool."""
    if tolerance < 1:
        return objects
    from scipy.ndimage import distance_transform_edt

    masks = objects.flatten(0, 1).cpu().numpy()
    near = [torch.from_numpy(distance_transform_edt(~mask) <= tolerance) for mask in masks]
    widened: Tensor = torch.stack(near).unflatten(0, objects.shape[:2]).to(objects.device)
    return widened
