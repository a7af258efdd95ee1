"""Rasterises polygons by signed distances on the pixel grid.

Drawing libraries fill one polygon of one image at a time, in main memory, and pad by whole pixels:
one pixel is a quarter of an eye's height on a face of 48 pixels. Signed distances can pad by any
amount, separate neighbouring polygons, and are computed for a whole batch on its device.
"""

from __future__ import annotations

import torch
from torch import Tensor


def signed_distance(polygons: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the distance of each pixel's centre from the outline, negative inside.

    Args:
        polygons: (..., P, 2) floating point: x and y in pixels, the centre of the first pixel
            at (0.5, 0.5). The last point is joined to the first. A point is inside if a ray from it
            crosses an odd number of edges.
        size: (H, W) in pixels.

    Returns:
        (..., H, W) in pixels, on the polygons' device; NaN for polygons with a NaN.

    Example:
        >>> square = torch.tensor([[1.0, 1.0], [4.0, 1.0], [4.0, 4.0], [1.0, 4.0]])
        >>> signed_distance(square, (5, 5))[2].tolist()
        [0.5, -0.5, -1.5, -0.5, 0.5]
    """
    h, w = size
    x = torch.arange(w, dtype=polygons.dtype, device=polygons.device) + 0.5
    y = torch.arange(h, dtype=polygons.dtype, device=polygons.device).unsqueeze(1) + 0.5
    shape = (*polygons.shape[:-2], h, w)
    nearest = polygons.new_full(shape, torch.inf)
    inside = torch.zeros(shape, dtype=torch.bool, device=polygons.device)
    points = polygons[..., None, None]  # (..., P, 2, 1, 1)
    for start, end in zip(points.unbind(-4), points.roll(-1, -4).unbind(-4), strict=True):
        edge_x, edge_y = (end - start).unbind(-3)
        from_x, from_y = x - start[..., 0, :, :], y - start[..., 1, :, :]
        length = (edge_x.square() + edge_y.square()).clamp(min=1e-12)
        along = ((from_x * edge_x + from_y * edge_y) / length).clamp(0, 1)
        squared = (from_x - along * edge_x).square() + (from_y - along * edge_y).square()
        nearest = torch.minimum(nearest, squared)
        # A ray to the right crosses the edge if its ends lie on different sides of the row.
        across = (from_y >= 0) != (from_y >= edge_y)
        inside ^= across & (from_x < from_y * edge_x / edge_y)
    return nearest.sqrt().where(~inside, -nearest.sqrt())


def coverage(distance: Tensor) -> Tensor:
    """Turn signed distances in pixels into masks in [0, 1], with edges one pixel wide."""
    return (0.5 - distance).clamp(0, 1).nan_to_num(0)


def smooth(polygons: Tensor) -> Tensor:
    """Insert a point on a smooth curve between neighbours: (..., P, 2) to (..., 2P, 2).

    This is the four-point scheme of Dyn, Levin and Gregory 1987
    (doi:10.1016/0167-8396(87)90001-X), which retains the given points.

    Example:
        >>> square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
        >>> smooth(square)[1].tolist()
        [0.5, -0.125]
    """
    here, after = polygons, polygons.roll(-1, -2)
    outer = polygons.roll(1, -2) + polygons.roll(-2, -2)
    between = (9 * (here + after) - outer) / 16
    return torch.stack([here, between], dim=-2).flatten(-3, -2)
