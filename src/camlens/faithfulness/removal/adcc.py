"""ADCC: whether what a map shows keeps the score and the map, with a map that shows little."""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import torch
from torch import Tensor, nn

from ... import heatmap
from ...baselines import Baseline, baseline_images, check_baseline
from ...explainers import Explainer
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
    r"""Combine average drop, coherency and complexity, so that none of them alone can be gamed.

    .. math:: 3 \left(\frac{1}{\mathrm{Coh}} + \frac{1}{1 - \mathrm{Com}}
              + \frac{1}{1 - \mathrm{AD}}\right)^{-1}

    AD is :func:`average_drop`. Com is the mean of the heatmap, the share of the image that it
    shows. Coh is (r + 1) / 2 with Pearson's correlation r of the heatmap and of that of the image
    times the heatmap, for the same target: what is shown should itself be explained by the same
    place. Poppi, Cornia, Baraldi and Cucchiara, "Revisiting The Evaluation of Class Activation
    Mapping for Explainability", CVPR Workshops 2021 (arXiv:2104.10252). Their code
    (aimagelab/ADCC, metrics/adcc.py) multiplies by the sum instead of dividing; the formula is
    the paper's.

    Args:
        model: the explainer's, in evaluation mode; it is left unchanged.
        images: (N, C, *size), as the model takes them.
        explainer: what explains them; it runs once, and once more for each target.
        baseline: what is seen where the heatmap is 0, as :func:`average_drop` takes it.
        options: see :class:`MetricOptions`.

    Returns:
        Values in [0, 1], higher is better; NaN where one of the two heatmaps is constant, such as
        one without evidence, or the probability is 0. The floors' own maps of the masked image are
        compared; noise and the centre do not depend on it, so that their coherency is 1.

    Raises:
        TypeError: something is of the wrong type, such as a map in place of an explainer.
        ValueError: something does not fit, the explainer has another model, or what is followed is
            no probability, see :func:`average_drop`.

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
    """Return Pearson's correlation of maps, (N, M); NaN where one is constant."""
    x, y = (maps.flatten(2).double() for maps in (one, other.to(one.device)))
    flat = [values.amax(dim=2) == values.amin(dim=2) for values in (x, y)]
    x, y = (values - values.mean(dim=2, keepdim=True) for values in (x, y))
    found = torch.nn.functional.cosine_similarity(x, y, dim=2, eps=0)
    return found.clamp(-1, 1).where(~(flat[0] | flat[1]), torch.nan).float()
