"""Scores of heatmaps on regions: share, density, pointing game and intersection over union."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..explanation import Explanation
from ..render.html_tables import each_map, html_table
from ..render.text_tables import text_table
from .masks import Regions
from .resolution import fills_window, resolution_of

# Tolerance for heatmaps with a maximum of 1. Near an image's edge a resized map is constant except
# for rounding errors of the interpolation; without the tolerance one map in 300 and its mirror
# image would not have the same peak.
_ROUNDING = 1e-5


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """Scores of heatmaps on R regions, for N images and K targets.

    Undefined scores are NaN: those of regions that the map cannot resolve, and of maps without
    evidence.

    Attributes:
        names: R region names.
        share: (N, K, R) in [0, 1], the fraction of the map's heat on the region. Over regions that
            sum to 1 at each pixel, shares sum to 1; with soft masks a pixel's heat counts by the
            mask's value, with overlapping masks it counts for each.
        density: (N, K, R), the share divided by the region's fraction of the image's area; 1 for a
            uniform map.
        pointing_game: (N, K, R), 1 if the hottest pixel is inside (the mask is at least 0.5 there),
            else 0; the mean over equally hot pixels if there are several (Zhang et al. 2018,
            arXiv:1608.00507).
        iou: (N, K, R) in [0, 1], intersection over union of the region and the hottest pixels, as
            many as the region's area; equally hot pixels each count in part.
        density_rank: (N, K, R), the rank of the region's density among the regions of the map, 1
            for the densest; equal densities share their mean rank.
        resolvable: (N, K, R) bool, False if the region is smaller than the map's resolution:
            its area is smaller, or it nowhere fills half of a window of that size.
            A region that is absent from the image is not resolvable.
        evidence: (N, K) bool, False if the map is zero.
        area: (N, R) in [0, 1], each region's fraction of the image's area.
        grid: the explained layer's number of cells along each axis.
        resolution: the finest detail of the maps in pixels along each axis: the wider of a cell of
            the grid and the layer's effective receptive field, if measured.
        resolution_from: ``"grid"``, or ``"receptive field"`` if that is wider along any axis.
        targets: (N, K) int64 class ids; -1 if unknown.
        scores: (N, K), the explained scores; NaN if unknown.
        method: name of the method; empty if unknown.
        layers: names of the explained layers.
    """

    names: tuple[str, ...]
    share: Tensor
    density: Tensor
    pointing_game: Tensor
    iou: Tensor
    density_rank: Tensor
    resolvable: Tensor
    evidence: Tensor
    area: Tensor
    grid: tuple[int, ...]
    resolution: tuple[float, ...]
    resolution_from: str
    targets: Tensor
    scores: Tensor
    method: str = ""
    layers: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return a one-line summary without the numbers."""
        n, k, _ = self.share.shape
        return (
            f"Scores({self.method or 'heatmaps'}: {n} images, {k} targets each, grid {self.grid}, "
            f"regions {', '.join(self.names)})"
        )

    def __str__(self) -> str:
        """Return the summary and a table of the first numbers."""
        return f"{self!r}\n{text_table(*self._table(), missing='not resolvable')}"

    def _repr_html_(self) -> str:
        """Return a table for a notebook: each region's heat next to the chance value."""
        where = f" at {', '.join(self.layers)}" if self.layers else ""
        caption = f"{self.method or 'Heatmaps'}{where}: heat on each region"
        return html_table(caption, *self._table(), missing="not resolvable")

    def _table(self) -> tuple[list[str], list[list[str | float]]]:
        """Return a header and a row for each image, target and region."""
        columns, names = each_map(self.targets.tolist(), self.names)
        area = self.area.unsqueeze(1).expand_as(self.share)
        numbers = torch.stack([self.share, area.to(self.share), self.density], dim=-1)
        rows = [a + b for a, b in zip(names, numbers.flatten(0, 2).tolist(), strict=True)]
        return [*columns, "share of the heat", "share of the area", "density (chance: 1)"], rows


@torch.no_grad()
def score(
    explanation: Explanation | Tensor, regions: Regions, *, grid: Sequence[int] | None = None
) -> Scores:
    """Measure how much of each heatmap falls on each region.

    Args:
        explanation: the result of an explainer, or ``(N, K, *size)`` heatmaps from another source:
            not negative, on any scale, with 1, 2 or 3 spatial axes.
        regions: regions of the same size, for N images, or one set for all.
        grid: grid of the layer at which heatmaps from another source were computed, before they
            were resized; by default a heatmap's pixels are its cells. An explanation has its own.

    Returns:
        The scores, on the heatmaps' device.

    Raises:
        TypeError: ``explanation`` is neither an explanation nor a floating-point tensor.
        ValueError: shapes are wrong, heatmaps are negative or not finite, or the grid is not the
            explanation's.

    Example:
        >>> halves = Regions.from_boxes(["left", "right"], [[0, 0, 2, 2], [2, 0, 4, 2]], (2, 4))
        >>> scores = score(torch.tensor([[[[0.0, 1, 1, 2], [0.0, 0, 0, 0]]]]), halves)
        >>> scores.share.flatten().tolist(), scores.density.flatten().tolist()
        ([0.25, 0.75], [0.5, 1.5])
        >>> scores.pointing_game.flatten().tolist(), scores.density_rank.flatten().tolist()
        ([0.0, 1.0], [2.0, 1.0])
    """
    if not isinstance(regions, Regions):
        raise TypeError(f"expected regions as Regions(names, masks), got {type(regions).__name__}")
    heat, facts, receptive_field = _read(explanation, grid)
    n, k, *size = heat.shape
    if regions.size != tuple(size):
        raise ValueError(
            f"expected regions of the heatmaps' size {tuple(size)}, got {regions.size}: resize "
            f"them with regions.resize({tuple(size)})"
        )
    if len(regions.masks) not in (1, n):
        raise ValueError(
            f"expected regions of {n} images, or of one for all, got {len(regions.masks)}"
        )
    masks = regions.masks.to(heat.device)
    area = masks.mean(dim=tuple(range(2, masks.ndim))).expand(n, -1)
    resolution, resolution_from = resolution_of(size, facts["grid"], receptive_field)
    large = fills_window(masks, resolution).unsqueeze(1).expand(n, k, -1)
    flat, masks = heat.flatten(2), masks.flatten(2)
    total = flat.sum(dim=-1, keepdim=True)
    evidence = total.squeeze(-1) > 0
    with torch.autocast(heat.device.type, enabled=False):  # it would multiply in half precision
        share = flat @ masks.transpose(1, 2) / total
        peak_inside = _pointing_game(flat, masks)
    usable = large & evidence.unsqueeze(-1)
    density = (share / area.unsqueeze(1)).where(usable, torch.nan)
    return Scores(
        names=regions.names,
        share=share.where(usable, torch.nan),
        density=density,
        pointing_game=peak_inside.where(usable, torch.nan),
        iou=_iou(flat, masks).where(usable, torch.nan),
        # Rounded, so that numerical errors do not decide the order.
        density_rank=ranks(-density.round(decimals=4)).where(usable, torch.nan),
        resolvable=large,
        evidence=evidence,
        area=area,
        resolution=resolution,
        resolution_from=resolution_from,
        **facts,
    )


def ranks(values: Tensor) -> Tensor:
    """Rank values along the last dimension, 1 for the lowest; equal values share their mean rank.

    NaN values are ignored; their own ranks are meaningless.

    Example:
        >>> ranks(torch.tensor([0.5, 3.0, 0.5])).tolist()
        [1.5, 3.0, 1.5]
    """
    below = values.unsqueeze(-1) > values.unsqueeze(-2)
    equal = values.unsqueeze(-1) == values.unsqueeze(-2)
    return below.sum(dim=-1) + (equal.sum(dim=-1) + 1) / 2


def _read(
    explanation: Explanation | Tensor, grid: Sequence[int] | None
) -> tuple[Tensor, dict[str, Any], Sequence[float | None] | None]:
    """Return (N, K, *size) heatmaps, fields of :class:`Scores`, and the receptive field or None."""
    if isinstance(explanation, Explanation):
        if grid is not None and tuple(grid) != tuple(explanation.grid):
            raise ValueError(f"the explanation's grid is {explanation.grid}, got grid={grid}")
        names = ("grid", "targets", "scores", "method", "layers")
        facts = {name: getattr(explanation, name) for name in names}
        registration = getattr(explanation, "registration", None)
        return explanation.heatmaps, facts, getattr(registration, "receptive_field", None)
    if not isinstance(explanation, Tensor) or not explanation.is_floating_point():
        kind = getattr(explanation, "dtype", type(explanation).__name__)
        raise TypeError(f"expected an Explanation or floating-point heatmaps, got {kind}")
    if not 3 <= explanation.ndim <= 5 or 0 in explanation.shape:
        raise ValueError(
            f"expected heatmaps as (N, K, H, W), (N, K, L) or (N, K, D, H, W) with no dimension "
            f"empty, got {tuple(explanation.shape)}"
        )
    low, high = explanation.aminmax()
    if not ((low >= 0) & (high < torch.inf)).item():  # false for NaN
        raise ValueError(
            f"expected finite heatmaps that are not negative, got values from {low:.3g} to "
            f"{high:.3g}: camlens.heatmap.scale(maps) keeps the positive evidence, maps.abs() "
            "counts both signs"
        )
    n, k, *size = explanation.shape
    cells = tuple(size) if grid is None else tuple(int(count) for count in grid)
    if len(cells) != len(size) or min(cells) < 1:
        raise ValueError(
            f"expected a grid of at least one cell on each of {len(size)} axes, got {cells}"
        )
    # Divided by the maximum: sums of a map far from 1 would overflow or vanish.
    wide = explanation.double() if explanation.dtype == torch.float64 else explanation.float()
    largest = wide.amax(dim=tuple(range(2, wide.ndim)), keepdim=True)
    unknown = {
        "targets": torch.full((n, k), -1, device=wide.device),
        "scores": torch.full((n, k), torch.nan, device=wide.device),
    }
    return (wide / largest.where(largest > 0, 1)).float(), {"grid": cells, **unknown}, None


def _pointing_game(heat: Tensor, masks: Tensor) -> Tensor:
    """Return (N, K, R): whether the peak of (N, K, P) heat is inside (N, R, P) masks."""
    peak = _reaches(heat, heat.amax(dim=-1, keepdim=True) - _ROUNDING)
    inside = peak @ masks.transpose(1, 2) / peak.sum(dim=-1, keepdim=True)
    return (inside >= 0.5).float()


def _iou(heat: Tensor, masks: Tensor) -> Tensor:
    """Return (N, K, R): intersection over union with the hottest pixels of the same area."""
    pixels = heat.shape[-1]
    ordered = _ordered(heat)
    area = masks.sum(dim=-1).unsqueeze(1)  # (N, 1, R)
    last = (pixels - area.ceil().long()).clamp(0, pixels - 1)
    threshold = ordered.gather(-1, last.expand(*heat.shape[:2], -1))
    low, high = threshold - _ROUNDING, threshold + _ROUNDING
    hotter = pixels - torch.searchsorted(ordered, high)
    level = pixels - torch.searchsorted(ordered, low) - hotter
    # Each pixel at the threshold counts by the fraction that makes the area right.
    part = ((area - hotter) / level).clamp(0, 1)
    intersections = []
    for region in range(masks.shape[1]):
        inside = masks[:, region].any(dim=0).nonzero().flatten()  # elsewhere both are disjoint
        mask, values = masks[:, region, inside].unsqueeze(1), heat.index_select(-1, inside)
        column = slice(region, region + 1)
        at_level = _reaches(values, low[..., column]) * part[..., column]
        hottest = at_level.maximum(_reaches(values, high[..., column]))
        intersections.append(hottest.minimum(mask).sum(dim=-1))
    intersection = torch.stack(intersections, dim=-1)
    # The union is the sum of both less their intersection: max(a, b) = a + b - min(a, b).
    return intersection / (hotter + level * part + area - intersection)


def _reaches(values: Tensor, least: Tensor) -> Tensor:
    """Return 1.0 where a value is at least ``least``, 10 times as fast as converting a bool."""
    return torch.ge(values, least, out=torch.empty_like(values))


def _ordered(heat: Tensor) -> Tensor:
    """Sort along the last dimension, ascending, on a CPU by numpy, which is 30 times as fast."""
    if heat.device.type != "cpu":
        return heat.sort(dim=-1).values
    return torch.from_numpy(np.sort(heat.detach().numpy(), axis=-1))
