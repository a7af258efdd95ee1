"""The outlines of regions as SVG paths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from .masks import BACKGROUND, Regions

#: The longer side of an image in the paths' units, and the pixels that masks are traced with.
LONGEST = 224
#: Most characters of a region's path; a face's eye takes about 200.
MOST = 8000


def outlines(regions: Regions) -> list[dict[str, str]]:
    """Trace the edges of 2-D masks, where their value is 0.5.

    Returns:
        For each set of masks, the ``d`` attribute of an SVG path for each region, in whole units:
        an image's longer side has 224. It is empty if the region is absent, or too small to reach
        0.5 at that size. Of a ragged region, the largest lines that fit into 8,000 characters are
        kept. The background has no path, since its edges are those of the other regions.

    Example:
        >>> outlines(Regions.from_boxes(["box"], [[10, 20, 100, 200]], (224, 224)))
        [{'box': 'M10,20l2,0 88,0 0,180 -90,0 0,-180z'}]
    """
    regions = shrunk(regions)
    scale = LONGEST / max(regions.size)
    return [
        {
            name: _joined(_paths(mask, scale))
            for name, mask in zip(regions.names, own, strict=True)
            if name != BACKGROUND
        }
        for own in regions.masks.numpy()
    ]


def shrunk(regions: Regions) -> Regions:
    """Return the masks that are traced: with at most 224 pixels a side, on the CPU."""
    h, w = regions.size
    scale = min(1.0, LONGEST / max(h, w))
    return regions.resize((max(1, round(h * scale)), max(1, round(w * scale)))).to("cpu")


def _joined(paths: Iterable[str]) -> str:
    joined = ""
    for path in paths:
        if len(joined) + len(path) <= MOST:
            joined += path
    return joined


def _paths(mask: npt.NDArray[np.float32], scale: float) -> Iterator[str]:
    """Yield the closed lines around a mask, the largest first."""
    from contourpy import contour_generator  # matplotlib depends on it
    from matplotlib.path import Path

    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not len(rows):
        return
    # Cut out the region, since tracing takes time; zeros around it close the outlines.
    cut = np.pad(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 1)
    # The centre of the mask's first pixel is at (0.5, 0.5), and of the padded one at (1, 1).
    corner = columns[0] - 0.5, rows[0] - 0.5
    lines = [np.asarray(line) for line in contour_generator(z=cut).lines(0.5)]
    for line in sorted(lines, key=lambda line: -np.ptp(line, axis=0).sum()):
        path = Path((line + corner) * scale)
        path.simplify_threshold = 1.0
        # matplotlib adds the first point and an end mark.
        points = np.asarray(path.cleaned(simplify=True).vertices)[:-2].round().astype(int)
        moves = " ".join(f"{x},{y}" for x, y in np.diff(points, axis=0) if x or y)
        if moves:
            yield f"M{points[0, 0]},{points[0, 1]}l{moves}z"
