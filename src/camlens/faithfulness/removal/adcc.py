"""ADCC: the harmonic mean of average drop, coherency and complexity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import torch
from torch import Tensor, nn

from ... import heatmap
from ...baselines import Baseline, baseline_images, check_baseline
from ...explainers.base import Explainer
from ...model import check_images
from ..metric.floors import FLOORS
from ..metric.inputs import MetricInputs, explained
from ..metric.options import MetricOptions
from ..metric.result import MetricResult
from .masked_images import checked_probabilities, masked_probabilities


def adcc(
    model: nn.Module,
    images: Tensor,
    explainer: Explainer,
    *,
    baseline: Baseline = 0.0,
    **options: Unpack[MetricOptions],
) -> MetricResult:
    r"""Combine average drop, coherency and complexity in one score that is harder to game.

    .. math:: 3 \left(\frac{1}{\mathrm{Coh}} + \frac{1}{1 - \mathrm{Com}}
              + \frac{1}{1 - \mathrm{AD}}\right)^{-1}

    AD is :func:`average_drop`. Com is the mean of the heatmap, the share of the image that it
    shows. Coh is (r + 1) / 2, where r is Pearson's correlation of the heatmap and the heatmap of
    the masked image (the image times the heatmap) for the same target: the explanation of the
    masked image should mark the same pixels. Poppi, Cornia, Baraldi and Cucchiara, "Revisiting The
    Evaluation of Class Activation Mapping for Explainability", CVPR Workshops 2021
    (arXiv:2104.10252). Their code (aimagelab/ADCC, metrics/adcc.py) multiplies by the sum instead
    of dividing; camlens uses the paper's formula.

    Args:
        model: the explainer's model, in evaluation mode; it is left unchanged.
        images: (N, C, *size), as the model takes them.
        explainer: explains the images; it runs once, and once more for each target.
        baseline: pixels shown where the heatmap is 0, see :func:`average_drop`.
        options: see :class:`MetricOptions`.

    Returns:
        Values in [0, 1], higher is better; NaN if one of the two heatmaps is constant, for example
        without evidence, or if the probability is 0. A floor is compared with the same floor of the
        masked image; noise and the centre do not depend on the image, so their coherency is 1.

    Raises:
        TypeError: an argument has the wrong type, such as a map instead of an explainer.
        ValueError: the arguments do not match, the explainer has another model, or the tracked
            score is not a probability, see :func:`average_drop`.

    Example:
        >>> import camlens
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)).eval()
        >>> found = adcc(model, torch.rand(2, 3, 8, 8), camlens.Saliency(model))
        >>> found.better, found.values.shape
        ('higher', torch.Size([2, 1]))
    """
    images = check_images(images).detach()
    explanation, again = explained(model, images, explainer, **options)
    inputs = MetricInputs("adcc", model, images, explanation, **options)
    start = baseline_images(check_baseline(baseline), images)
    before = checked_probabilities("adcc", inputs.unchanged)

    @torch.no_grad()
    def value(maps: Tensor, explain: Callable[[Tensor, int], Tensor]) -> Tensor:
        heat = heatmap.scale(maps)
        after = masked_probabilities(inputs, start, heat)
        kept = 1 - (before - after).clamp(min=0) / before.where(before > 0, torch.nan)
        seen = [
            explain(torch.lerp(start, images, heat[:, k : k + 1].to(images.dtype)), k)
            for k in range(heat.shape[1])
        ]
        coherency = (_pearson(heat, torch.stack(seen, dim=1)) + 1) / 2
        little = 1 - heat.flatten(2).mean(dim=2)
        return 3 / (1 / coherency + 1 / little + 1 / kept)

    def floor(name: str) -> Tensor:
        make = FLOORS[name]
        maps = make(images, inputs.seeds)
        return value(maps, lambda masked, k: heatmap.scale(make(masked, inputs.seeds))[:, k])

    values = value(inputs.maps, lambda masked, k: again(masked).heatmaps[:, k].detach())
    return MetricResult(
        metric="adcc",
        values=values,
        better="higher",
        floor_values={name: floor(name) for name in inputs.options.floors},
        seed=inputs.options.seed,
    )


def _pearson(one: Tensor, other: Tensor) -> Tensor:
    """Return Pearson's correlation of maps, (N, M); NaN if one is constant."""
    x, y = (maps.flatten(2).double() for maps in (one, other.to(one.device)))
    flat = [values.amax(dim=2) == values.amin(dim=2) for values in (x, y)]
    x, y = (values - values.mean(dim=2, keepdim=True) for values in (x, y))
    found = torch.nn.functional.cosine_similarity(x, y, dim=2, eps=0)
    return found.clamp(-1, 1).where(~(flat[0] | flat[1]), torch.nan).float()
