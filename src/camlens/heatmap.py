"""Functions that turn maps on a layer's grid into heatmaps at the image's size.

A grid has one axis for signals, two for images and three for volumes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate

#: Linear interpolation by the number of grid axes, as torch names it.
_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def resize(maps: Float[Tensor, "n k *grid"], size: Sequence[int]) -> Float[Tensor, "n k *size"]:
    """Resize maps linearly, bilinearly or trilinearly.

    Cells and pixels are areas (``align_corners=False``): a cell's value lies at the cell's centre,
    and pixels beyond the outermost centres take the outermost value.

    Args:
        maps: (N, K, *grid) with one, two or three grid axes, any range.
        size: the new length of each axis in samples, pixels or voxels: (L,), (H, W) or (D, H, W).

    Returns:
        (N, K, *size). Each value lies within the range of its own map. Maps that have the size
        already are returned unchanged.

    Raises:
        ValueError: the maps have no grid axis or more than three, or ``size`` has another number of
            axes than the maps.

    Example:
        >>> import torch
        >>> resize(torch.tensor([[[0.0, 1.0]]]), (4,)).flatten().tolist()
        [0.0, 0.25, 0.75, 1.0]
    """
    axes, size = maps.ndim - 2, tuple(size)
    if axes not in _MODES:
        raise ValueError(
            f"expected maps with 1 to 3 grid axes as (N, K, *grid), got {tuple(maps.shape)}"
        )
    if len(size) != axes:
        raise ValueError(
            f"expected a size of {axes} numbers for maps of {tuple(maps.shape)}, got {size}"
        )
    if tuple(maps.shape[2:]) == size:
        return maps
    return interpolate(maps, size, mode=_MODES[axes], align_corners=False)


def scale(maps: Float[Tensor, "n k *grid"]) -> Float[Tensor, "n k *grid"]:
    """Divide the positive part of each map by its maximum.

    The minimum is not subtracted, since zero means "no evidence". No epsilon is added, since maps
    have the arbitrary unit of the logits: maps that differ by a positive factor give the same
    heatmap.

    Args:
        maps: (N, K, *grid), any range; negative values count as no evidence.

    Returns:
        (N, K, *grid) in [0, 1]. The largest value of each map is 1; a map without positive values
        is all zero.

    Example:
        >>> import torch
        >>> scale(torch.tensor([[[[-1.0, 2e-20, 4e-20]]]])).flatten().tolist()
        [0.0, 0.5, 1.0]
    """
    positive = maps.clamp(min=0)
    maximum = positive.amax(dim=_grid_axes(maps), keepdim=True)
    return positive / maximum.where(maximum > 0, 1)


def evidence(maps: Float[Tensor, "n k *grid"]) -> Bool[Tensor, "n k"]:
    """Return (N, K) booleans: whether each map has any positive value.

    Example:
        >>> import torch
        >>> evidence(torch.tensor([[[[0.0]], [[3.0]]]])).tolist()
        [[False, True]]
    """
    return maps.amax(dim=_grid_axes(maps)) > 0


def fuse(maps: Sequence[Float[Tensor, "n k ..."]], how: str = "mean") -> Float[Tensor, "n k *grid"]:
    """Average or multiply the maps of several layers on the finest of their grids.

    Each map is first divided by its maximum (:func:`scale`), since the maps of different layers
    have different units. A single layer's map is returned unchanged.

    Args:
        maps: (N, K, *grid) for each layer; the grids may differ, but not their number of axes.
        how: ``"mean"`` or ``"product"``. The product retains the evidence that all layers agree on:
            it is zero wherever one layer has no evidence. RefineCAM (arXiv:2605.14641) is the
            product of Grad-CAM++ maps.

    Returns:
        (N, K, *grid) on the grid with the most cells.

    Raises:
        ValueError: the maps differ in their number of grid axes.

    Example:
        >>> import torch
        >>> coarse, fine = torch.full((1, 1, 1, 1), 8.0), torch.tensor([[[[0.0, 2.0]]]])
        >>> fuse([coarse, fine]).flatten().tolist()
        [0.5, 1.0]
    """
    if len(maps) == 1:
        return maps[0]
    finest = max((m.shape[2:] for m in maps), key=math.prod)
    resized = [resize(scale(m), finest) for m in maps]
    if how == "product":
        return math.prod(resized[1:], start=resized[0])
    return sum(resized[1:], resized[0]) / len(resized)


def _grid_axes(maps: Tensor) -> tuple[int, ...]:
    return tuple(range(2, maps.ndim))
