"""What is kept of a group of images: heat, scores, ablations."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from .. import heatmap
from ..explanation import Explanation
from ..faithfulness import RegionAblation
from ..regions.masks import Regions
from ..regions.scores import Scores, score

#: Heatmaps at the images' size take at most so many bytes at once while they are scored.
_SCORED_BYTES = 256 * 2**20


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Maps:
    """Maps of N images and K targets by one method, as they are kept.

    Attributes:
        method, layer, grid: as the tables have them.
        targets, scores, evidence: (N, K).
        heat: (N, K, h, w) uint8 or float16, each map over its maximum.
    """

    method: str
    layer: str
    grid: str
    targets: Tensor
    scores: Tensor
    evidence: Tensor
    heat: Tensor


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Explained:
    """What is known of a group of N images.

    Attributes:
        indexes, labels, names: N of each.
        size: (H, W) of the images.
        pictures: (N, 1 or 3, H, W) uint8.
        predictions: (N,) class ids, -1 where the model gives no (N, classes).
        confidences: (N,) probabilities of the predictions, NaN where there are none.
        maps: one for each explainer.
        scores: one for each explainer, where there are regions.
        ablation: where an infill was given.
    """

    indexes: tuple[int, ...]
    labels: tuple[int, ...]
    names: tuple[str, ...]
    size: tuple[int, int]
    pictures: Tensor
    predictions: Tensor
    confidences: Tensor
    maps: tuple[Maps, ...]
    scores: tuple[Scores, ...]
    ablation: RegionAblation | None

    def copied(self, change: Callable[[Tensor], Tensor]) -> Explained:
        """Return it with all tensors changed, such as moved to main memory."""
        return dataclasses.replace(
            _changed(self, change),
            maps=tuple(_changed(one, change) for one in self.maps),
            scores=tuple(_changed(one, change) for one in self.scores),
            ablation=None if self.ablation is None else _changed(self.ablation, change),
        )


_Found = TypeVar("_Found", Explained, Maps, Scores, RegionAblation)


def kept(explanation: Explanation, heatmaps: str) -> Maps:
    """Return an explanation's maps as they are kept, ``"uint8"`` or ``"float16"``."""
    heat = heatmap.scale(explanation.raw)
    return Maps(
        method=explanation.method,
        layer="+".join(explanation.layers),
        grid="x".join(map(str, explanation.grid)),
        targets=explanation.targets,
        scores=explanation.scores,
        evidence=explanation.evidence,
        heat=(heat * 255).round().to(torch.uint8) if heatmaps == "uint8" else heat.half(),
    )


def scored(explanation: Explanation, regions: Regions) -> Scores:
    """Score a few images at a time: of a thousand classes the heatmaps are large.

    Raises:
        ValueError: as :func:`camlens.regions.score` raises it.
    """
    n, k = explanation.scores.shape
    step = max(1, _SCORED_BYTES // (4 * k * math.prod(explanation.size)))
    if step >= n:
        return score(explanation, regions)
    parts = []
    for start in range(0, n, step):
        some = slice(start, start + step)
        parts.append(score(explanation[some], regions.of_images(some)))
    return joined(parts)


def joined(parts: Sequence[_Found]) -> _Found:
    """Put the scores or ablations of several groups of images together.

    They are of the same regions, targets an image, method, layers and grid.
    """
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(parts[0]):
        if isinstance(getattr(parts[0], field.name), Tensor):
            changes[field.name] = torch.cat([getattr(part, field.name) for part in parts])
    return dataclasses.replace(parts[0], **changes)


def _changed(found: _Found, change: Callable[[Tensor], Tensor]) -> _Found:
    values = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    tensors: dict[str, Any] = {n: change(v) for n, v in values.items() if isinstance(v, Tensor)}
    return dataclasses.replace(found, **tensors)
