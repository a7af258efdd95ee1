"""Localization metrics: does a map's heat lie on the object? They do not run the model."""

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

# Near an image's edge a resized map is constant except for rounding, which must not decide where
# the maximum is.
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
    """Check whether the map's maximum lies on the object.

    The maximum is a hit if it is within ``tolerance`` pixels of the object, as in TorchRay's code
    (facebookresearch/TorchRay, torchray/benchmark/pointing_game.py) for the pointing game of Zhang
    et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016 (arXiv:1608.00507),
    section 4.1. If several pixels share the maximum, the value is the share of them that hit, so a
    constant map has the hit rate of a random pixel. The published score is the mean over classes of
    each class's mean: :func:`class_mean`.

    Args:
        model: not run; may be None.
        images: (N, C, *size).
        explanation: an explanation of the images, or maps (N, K, *size) from any source.
        where: the objects: ``Regions`` with one region for all targets (``regions.pick("name")``)
            or K regions, one for each target; masks (N, *size) or (N, K, *size), boolean or in
            [0, 1]; or boxes (N, 4) of left, top, right and bottom edges in pixels, see
            :meth:`camlens.regions.Regions.from_boxes`. A pixel belongs to an object if its mask is
            at least 0.5.
        tolerance: in pixels. 15 is TorchRay's, for photographs with sides of about 500 pixels.
        options: see :class:`MetricOptions`.

    Returns:
        Values in [0, 1], higher is better; NaN if there is no object, that is, if a mask is zero or
        a box is empty or outside the image.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the arguments do not match, see :class:`MetricInputs`; a mask is outside [0, 1];
            or a box's edges are out of order or not finite.

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
    count as zero. A map without heat is treated as uniform: its value is the object's share of the
    area.

    Args:
        model: not run; may be None.
        images: (N, C, *size).
        explanation: see :func:`pointing_game`, also for the arguments below.
        where: the objects; a soft mask weights the heat by its values.
        options: see :class:`MetricOptions`.

    Returns:
        Values in [0, 1], higher is better; NaN where there is no object.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the arguments do not match.

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
    """Measure how far the map's hottest pixels overlap the object.

    The intersection over union of the object and an equal number of the map's hottest pixels.
    The two sets have equal area, so no threshold has to be chosen. Pixels of equal value are in
    random order.

    Args:
        model: not run; may be None.
        images: (N, C, *size).
        explanation: see :func:`pointing_game`, also for the arguments below.
        where: the objects; a pixel belongs to an object if its mask is at least 0.5.
        options: see :class:`MetricOptions`.

    Returns:
        Values in [0, 1], higher is better; NaN where there is no object.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the arguments do not match.

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
    """Average the values of each class, then the classes, as published pointing game scores do.

    Args:
        values: (N, K), see :class:`MetricResult`; NaN is left out.
        classes: (N, K) or (N,): the class id of each value.

    Raises:
        TypeError: the classes are not integers.
        ValueError: the shapes do not match, all values are NaN, or a class is unknown (-1).

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
        raise ValueError("expected at least one finite value, got only NaN")
    numbers, own = classes.to(values.device).expand_as(values)[known].unique(return_inverse=True)
    if (numbers < 0).any():
        raise ValueError(
            f"expected class ids of at least 0, got {numbers.amin().item()}, which marks an "
            "unknown class: leave those images out"
        )
    total = torch.zeros(len(numbers), dtype=torch.float64, device=values.device)
    total.index_add_(0, own, values[known].double())
    return float((total / own.bincount()).mean())


def _heat(maps: Tensor) -> Tensor:
    """Return the positive part of maps; a map without positive values becomes all ones."""
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
            f"expected one mask, or one for each of {k} targets, for {n} images of size "
            f"{tuple(size)}, got shape {tuple(masks.shape)}"
        )
    return masks.to(maps.device).float().expand(n, -1, *size)


def _widened(objects: Tensor, tolerance: float) -> Tensor:
    """Dilate objects by a distance between pixel centres: (N, K, *size) bool."""
    if tolerance < 1:
        return objects
    try:
        from scipy.ndimage import distance_transform_edt
    except ImportError as error:
        raise ImportError(
            'a tolerance needs scipy: pip install "camlens[metrics]", or pass tolerance=0 '
            f"({error})"
        ) from error
    masks = objects.flatten(0, 1).cpu().numpy()
    near = [torch.from_numpy(distance_transform_edt(~mask) <= tolerance) for mask in masks]
    widened: Tensor = torch.stack(near).unflatten(0, objects.shape[:2]).to(objects.device)
    return widened
