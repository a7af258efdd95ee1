"""Is what a map points at what the score needs? The rank correlation of density and effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .scores import Scores, places

if TYPE_CHECKING:
    from .effects import Effect


def agreement(scores: Scores, effect: Effect) -> Tensor:
    """Rank the regions by density and by effect, and correlate: Spearman's coefficient.

    1: the regions that the map points at are those the score needs, in this order. 0: no relation.
    The effect's ``excess`` is used, since density too is beside what chance gives. Regions that
    matter little are ranked by the noise of the random places: more ``draws`` give a surer order.

    Args:
        scores: of heatmaps.
        effect: of the same images, targets and regions.

    Returns:
        (N, K) in [-1, 1]; NaN with fewer than three regions that both know, or without any order.

    Raises:
        ValueError: they are not of the same images, targets and regions.
    """
    check_same(scores, effect)
    density, excess = scores.density.round(decimals=4), effect.excess.to(scores.density.device)
    both = density.isfinite() & excess.isfinite()
    count = both.sum(dim=-1)
    ranks = torch.stack([places(v.where(both, torch.nan)) for v in (density, excess)])
    mean = ranks.where(both, 0).sum(dim=-1, keepdim=True) / count.unsqueeze(-1)
    a, b = (ranks - mean).where(both, 0).double().unbind()
    spread = (a.square().sum(dim=-1) * b.square().sum(dim=-1)).sqrt()
    defined = (count >= 3) & (spread > 0)
    return ((a * b).sum(dim=-1) / spread).where(defined, torch.nan).float()


def check_same(scores: Scores, effect: Effect) -> None:
    """Check that scores and an effect are of the same images, targets and regions.

    Raises:
        ValueError: they are not.
    """
    if scores.names != effect.names or scores.density.shape != effect.drop.shape:
        raise ValueError(
            f"expected scores and effect of the same images, targets and regions, got "
            f"{tuple(scores.density.shape)} of {scores.names} and {tuple(effect.drop.shape)} of "
            f"{effect.names}"
        )
    known = (scores.targets.cpu() >= 0) & (effect.targets.cpu() >= 0)
    if (known & (scores.targets.cpu() != effect.targets.cpu())).any():
        raise ValueError(
            "the scores and the effect are of other targets: measure the effect with "
            "targets=explanation.targets"
        )
