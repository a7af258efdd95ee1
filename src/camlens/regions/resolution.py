"""The resolution of a map, which decides which regions it can distinguish."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import pad

#: The two limits of a map's detail: the cells of its grid, and each cell's receptive field.
GRID, RECEPTIVE_FIELD = "grid", "receptive field"


def resolvable(
    masks: Tensor,
    grid: Sequence[int],
    *,
    receptive_field: Sequence[float | None] | None = None,
) -> Tensor:
    """Decide which regions a map can distinguish from their surroundings.

    A region is resolvable if its area is at least that of a window as wide as the map's resolution,
    and if it fills at least half of such a window somewhere. The second condition excludes two
    small eyes that reach the area only together, and thin lines. The resolution along each axis is
    a cell of the grid or the receptive field, whichever is wider.

    Args:
        masks: ``(N, R, *size)`` in [0, 1].
        grid: the map's number of cells along each axis.
        receptive_field: the layer's receptive field in pixels along each axis; None if not
            measured.

    Returns:
        (N, R) bool.

    Example:
        >>> import torch
        >>> thin = torch.zeros(1, 1, 8, 8).index_fill(2, torch.tensor([3]), 1.0)
        >>> [resolvable(thin, grid).item() for grid in ((8, 8), (4, 4), (2, 2))]
        [True, True, False]
        >>> resolvable(thin, (8, 8), receptive_field=(4.0, 4.0)).item()
        False
    """
    return fills_window(masks, resolution_of(masks.shape[2:], grid, receptive_field)[0])


def resolution_of(
    size: Sequence[int], grid: Sequence[int], receptive_field: Sequence[float | None] | None
) -> tuple[tuple[float, ...], str]:
    """Return the width of a map's finest detail in pixels along each axis, and what limits it.

    Args:
        size: the images' size in pixels.
        grid: the map's number of cells along each axis.
        receptive_field: the layer's receptive field in pixels along each axis; None if not
            measured.

    Returns:
        The widths, at least a pixel and at most the image, and ``"grid"`` or
        ``"receptive field"``.
    """
    cell = tuple(max(length / cells, 1.0) for length, cells in zip(size, grid, strict=True))
    if receptive_field is None:
        return cell, GRID
    sight = (0.0 if width is None else float(width) for width in receptive_field)
    # No window is wider than the image.
    wider = tuple(
        max(a, min(b, float(length))) for a, b, length in zip(cell, sight, size, strict=True)
    )
    return wider, GRID if wider == cell else RECEPTIVE_FIELD


def fills_window(masks: Tensor, resolution: Sequence[float]) -> Tensor:
    """Decide which regions are at least as large as a window.

    Args:
        masks: ``(N, R, *size)`` in [0, 1].
        resolution: the window's width in pixels along each axis.

    Returns:
        (N, R) bool: whether the region has the window's area, and fills half of it somewhere.
    """
    axes = range(2, masks.ndim)
    # Sums over all windows, from sums over all boxes that start at the first corner. Windows
    # consist of whole pixels, rounded up.
    sums = masks.double()
    for axis in reversed(axes):
        sums = sums.cumsum(axis)
    sums = pad(sums, (1, 0) * len(axes))
    area = sums.flatten(2)[..., -1]
    for axis, width in zip(axes, resolution, strict=True):
        length = masks.shape[axis]
        window = min(length, math.ceil(width))
        first = length + 1 - window
        sums = sums.narrow(axis, window, first) - sums.narrow(axis, 0, first)
    filled = sums.flatten(2).amax(dim=-1)
    least = math.prod(resolution) * (1 - 1e-6)  # tolerates rounding errors
    return (area >= least) & (filled >= least / 2)
