"""How much of a heatmap falls on each region, against what chance would give."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..explanation import Explanation
from .masks import Regions

# Heatmaps have a maximum of 1. Towards an image's edge a resized map is constant, but for what
# interpolation rounds: without this, 1 of 300 hits would not be the mirror image's.
_ROUNDING = 1e-5


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """What N images' heatmaps of K targets each claim of R regions.

    What cannot be said is NaN: of a region that is not resolvable, and of a map without
    evidence.

    Attributes:
        names: R region names.
        share: (N, K, R) in [0, 1], the part of the map's heat that falls on the region. Over
            regions that sum to 1 at each pixel, shares sum to 1; of soft masks a pixel's heat
            counts by the mask's value, of overlapping ones it counts for each.
        density: (N, K, R), the share over the region's share of the image's area. 1 is what a
            map without any preference has.
        pointing_game: (N, K, R), 1 if the hottest pixel lies inside (the mask is at least 0.5 there; its
            mean over several equally hot pixels), else 0. The pointing game of Zhang et al. 2018
            (arXiv:1608.00507).
        iou: (N, K, R) in [0, 1], intersection over union of the region and the hottest
            pixels, as many as the region's area; of equally hot pixels each counts in part.
        density_rank: (N, K, R), the place of the region's density among the regions of the map, 1 the
            densest; equal ones share the mean of their places.
        resolvable: (N, K, R) bool, False where the region is smaller than a cell of the map's
            grid: its area is, or there is no place at which it fills half of a cell's window. A
            region that is absent from the image is not resolvable.
        evidence: (N, K) bool, False where the map is empty.
        area: (N, R) in [0, 1], each region's share of the image's area.
        grid: (h, w), the finest detail the maps can tell apart.
        targets: (N, K) int64 class ids; -1 where unknown.
        scores: (N, K), the explained scores; NaN where unknown.
        method: name of the method; empty where unknown.
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
    grid: tuple[int, int]
    targets: Tensor
    scores: Tensor
    method: str = ""
    layers: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return a line that says what was scored, without the numbers."""
        n, k, _ = self.share.shape
        return (
            f"Scores({self.method or 'heatmaps'}: {n} images, {k} targets each, grid {self.grid}, "
            f"regions {', '.join(self.names)})"
        )


@torch.no_grad()
def score(
    explanation: Explanation | Tensor, regions: Regions, *, grid: tuple[int, int] | None = None
) -> Scores:
    """Score heatmaps against named regions.

    Args:
        explanation: what an explainer returned, or (N, K, H, W) heatmaps from anywhere: not
            negative, of any scale.
        regions: of the same size; of N images, or of one for all.
        grid: (h, w) of the layer that plain heatmaps were made at, before they were resized. An
            explanation knows its own; without it a heatmap's pixels are its cells.

    Returns:
        The scores, on the heatmaps' device.

    Raises:
        TypeError: no explanation and no floating-point tensor.
        ValueError: wrong shapes, heatmaps that are negative or not finite, or a grid that is not
            the explanation's.

    Example:
        >>> halves = Regions.from_boxes(["left", "right"], [[0, 0, 2, 2], [2, 0, 4, 2]], (2, 4))
        >>> found = score(torch.tensor([[[[0.0, 1, 1, 2], [0.0, 0, 0, 0]]]]), halves)
        >>> found.share.flatten().tolist(), found.density.flatten().tolist()
        ([0.25, 0.75], [0.5, 1.5])
        >>> found.pointing_game.flatten().tolist(), found.density_rank.flatten().tolist()
        ([0.0, 1.0], [2.0, 1.0])
    """
    if not isinstance(regions, Regions):
        raise TypeError(f"expected regions as Regions(names, masks), got {type(regions).__name__}")
    heat, facts = _read(explanation, grid)
    n, k, h, w = heat.shape
    if regions.size != (h, w):
        raise ValueError(
            f"expected regions of the heatmaps' size {(h, w)}, got {regions.size}: resize them "
            f"with regions.resize({(h, w)})"
        )
    if len(regions.masks) not in (1, n):
        raise ValueError(
            f"expected regions of {n} images, or of one for all, got {len(regions.masks)}"
        )
    masks = regions.masks.to(heat.device)
    area = masks.mean(dim=(-2, -1)).expand(n, -1)
    large = resolvable(masks, facts["grid"]).unsqueeze(1).expand(n, k, -1)
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
        # Rounded, since a rounding error is no order.
        density_rank=ranks(-density.round(decimals=4)).where(usable, torch.nan),
        resolvable=large,
        evidence=evidence,
        area=area,
        **facts,
    )


def resolvable(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Say which regions a map of a given grid can tell from their surroundings.

    A region passes if its area is at least a cell's and it fills at least half of some window of
    a cell's size. The second rules out two small eyes that only together are as large as
    a cell, and lines.

    Args:
        masks: (N, R, H, W) in [0, 1].
        grid: (h, w) of the map.

    Returns:
        (N, R) bool.

    Example:
        >>> thin = torch.zeros(1, 1, 8, 8).index_fill(2, torch.tensor([3]), 1.0)
        >>> [resolvable(thin, grid).item() for grid in ((8, 8), (4, 4), (2, 2))]
        [True, True, False]
    """
    h, w = masks.shape[-2:]
    cell = max(h / grid[0], 1.0), max(w / grid[1], 1.0)
    # Sums over all windows from sums over all corners. Windows of whole pixels, rounded up.
    window = min(h, -int(-cell[0] // 1)), min(w, -int(-cell[1] // 1))
    corners = torch.nn.functional.pad(masks.double().cumsum(-1).cumsum(-2), (1, 0, 1, 0))
    rows = corners[..., window[0] :, :] - corners[..., : -window[0], :]
    filled = (rows[..., window[1] :] - rows[..., : -window[1]]).amax(dim=(-2, -1))
    least = cell[0] * cell[1] * (1 - 1e-6)  # against rounding
    return (corners[..., -1, -1] >= least) & (filled >= least / 2)


def ranks(values: Tensor) -> Tensor:
    """Rank values along the last dimension, 1 the lowest; equal ones share the mean place.

    NaN are left out of the count, and have a place of their own that means nothing.

    Example:
        >>> ranks(torch.tensor([0.5, 3.0, 0.5])).tolist()
        [1.5, 3.0, 1.5]
    """
    below = values.unsqueeze(-1) > values.unsqueeze(-2)
    equal = values.unsqueeze(-1) == values.unsqueeze(-2)
    return below.sum(dim=-1) + (equal.sum(dim=-1) + 1) / 2


def _read(
    explanation: Explanation | Tensor, grid: tuple[int, int] | None
) -> tuple[Tensor, dict[str, Any]]:
    """Return the heatmaps, (N, K, H, W), and what is known of them."""
    if isinstance(explanation, Explanation):
        if grid is not None and tuple(grid) != explanation.grid:
            raise ValueError(f"the explanation's grid is {explanation.grid}, got grid={grid}")
        names = ("grid", "targets", "scores", "method", "layers")
        return explanation.heatmaps, {name: getattr(explanation, name) for name in names}
    if not isinstance(explanation, Tensor) or not explanation.is_floating_point():
        kind = getattr(explanation, "dtype", type(explanation).__name__)
        raise TypeError(f"expected an Explanation or floating-point heatmaps, got {kind}")
    if explanation.ndim != 4 or 0 in explanation.shape:
        raise ValueError(
            f"expected heatmaps as (N, K, H, W) with no dimension empty, got "
            f"{tuple(explanation.shape)}"
        )
    low, high = explanation.aminmax()
    if not ((low >= 0) & (high < torch.inf)).item():  # false for NaN
        raise ValueError(
            f"expected finite heatmaps that are not negative, got values from {low:.3g} to "
            f"{high:.3g}: camlens.heatmap.scale(maps) keeps what speaks for the score, maps.abs() "
            "counts both signs"
        )
    n, k, h, w = explanation.shape
    grid = (h, w) if grid is None else (int(grid[0]), int(grid[1]))
    if min(grid) < 1:
        raise ValueError(f"expected a grid of at least one cell, got {grid}")
    # Over its maximum: sums of a map far from 1 would overflow or vanish.
    wide = explanation.double() if explanation.dtype == torch.float64 else explanation.float()
    largest = wide.amax(dim=(-2, -1), keepdim=True)
    unknown = {
        "targets": torch.full((n, k), -1, device=wide.device),
        "scores": torch.full((n, k), torch.nan, device=wide.device),
    }
    return (wide / largest.where(largest > 0, 1)).float(), {"grid": grid, **unknown}


def _pointing_game(heat: Tensor, masks: Tensor) -> Tensor:
    """Return (N, K, R): whether the peak of (N, K, P) heat lies in (N, R, P) masks."""
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
    # Of the pixels at the threshold each is in with the part that makes the area right.
    part = ((area - hotter) / level).clamp(0, 1)
    parts = []
    for region in range(masks.shape[1]):
        here = masks[:, region].any(dim=0).nonzero().flatten()  # elsewhere nothing is in both
        mask, values = masks[:, region, here].unsqueeze(1), heat.index_select(-1, here)
        one = slice(region, region + 1)
        at_level = _reaches(values, low[..., one]) * part[..., one]
        hottest = at_level.maximum(_reaches(values, high[..., one]))
        parts.append(hottest.minimum(mask).sum(dim=-1))
    both = torch.stack(parts, dim=-1)
    # The smaller and the larger of two numbers are together as much as the two.
    return both / (hotter + level * part + area - both)


def _reaches(values: Tensor, least: Tensor) -> Tensor:
    """Return 1 where a value is at least so much, else 0; 10 times as fast as through a bool."""
    return torch.ge(values, least, out=torch.empty_like(values))


def _ordered(heat: Tensor) -> Tensor:
    """Sort along the last dimension, lowest first; numpy's sort is 30 times torch's on a CPU."""
    if heat.device.type != "cpu":
        return heat.sort(dim=-1).values
    return torch.from_numpy(np.sort(heat.detach().numpy(), axis=-1))
