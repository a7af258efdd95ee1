"""From a map at a layer's grid to a heatmap at the picture's size: resize, then scale."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate


def resize(maps: Float[Tensor, "n k *grid"], size: tuple[int, ...]) -> Float[Tensor, "n k *size"]:
    """Resize maps bilinearly (``align_corners=False``, the pixel-area convention).

    Args:
        maps: (N, K, h, w), any range.
        size: (H, W) in pixels.

    Returns:
        (N, K, H, W); no value lies outside the range of its own map.

    Example:
        >>> import torch
        >>> resize(torch.tensor([[[[0.0, 1.0]]]]), (1, 4)).flatten().tolist()
        [0.0, 0.25, 0.75, 1.0]
    """
    if maps.shape[-2:] == size:
        return maps
    return interpolate(maps, size, mode="bilinear", align_corners=False)


def scale(maps: Float[Tensor, "n k *grid"]) -> Float[Tensor, "n k *grid"]:
    """Divide the positive part of each map by its own maximum.

    There is no stretching from the minimum, since zero means "no evidence", and no epsilon,
    since a map's scale is that of the logits and says nothing: maps that differ by any
    positive factor give the same heatmap.

    Args:
        maps: (N, K, h, w), any range; negative values count as no evidence.

    Returns:
        (N, K, h, w) in [0, 1]. The largest value of each map is 1; a map without a positive
        value is all zero.

    Example:
        >>> import torch
        >>> scale(torch.tensor([[[[-1.0, 2e-20, 4e-20]]]])).flatten().tolist()
        [0.0, 0.5, 1.0]
    """
    positive = maps.clamp(min=0)
    maximum = positive.amax(dim=(-2, -1), keepdim=True)
    return positive / maximum.where(maximum > 0, 1)


def evidence(maps: Float[Tensor, "n k *grid"]) -> Bool[Tensor, "n k"]:
    """Say which maps hold any positive value at all.

    Example:
        >>> import torch
        >>> evidence(torch.tensor([[[[0.0]], [[3.0]]]])).tolist()
        [[False, True]]
    """
    return maps.amax(dim=(-2, -1)) > 0


def fuse(maps: list[Float[Tensor, "n k ..."]]) -> Float[Tensor, "n k *grid"]:
    """Average the maps of several layers, each scaled to its own maximum, on the finest grid.

    The maps of different layers have different units, hence the scaling. One map alone is
    returned as it is.

    Args:
        maps: one (N, K, h, w) for each layer, on any grids.

    Returns:
        (N, K, h, w) on the grid with the most cells.

    Example:
        >>> import torch
        >>> coarse, fine = torch.full((1, 1, 1, 1), 8.0), torch.tensor([[[[0.0, 2.0]]]])
        >>> fuse([coarse, fine]).flatten().tolist()
        [0.5, 1.0]
    """
    if len(maps) == 1:
        return maps[0]
    height, width = max((m.shape[-2:] for m in maps), key=lambda size: size[0] * size[1])
    resized = [resize(scale(m), (height, width)) for m in maps]
    return sum(resized[1:], resized[0]) / len(resized)
