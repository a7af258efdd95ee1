"""What is left of a probability when an image is multiplied by its heatmap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import torch
from torch import Tensor, nn

from ... import heatmap
from ...baselines import Baseline, baseline_images, check_baseline
from ...explanation import Explanation
from ..metric.inputs import MetricInputs, own_targets
from ..metric.options import MetricOptions
from ..metric.result import Better, MetricResult

#: By how much probabilities that a model computes itself may leave [0, 1].
_ROUNDING = 1e-3


def average_drop(
    model: nn.Module,
    images: Tensor,
    explanation: Explanation | Tensor,
    *,
    baseline: Baseline = 0.0,
    **options: Unpack[MetricOptions],
) -> MetricResult:
    r"""Measure which part of a probability goes when the image is multiplied by its heatmap.

    .. math:: \max(0, p - o) / p

    with p the probability of the image and o that of the image times the heatmap. Chattopadhay et
    al., "Grad-CAM++", WACV 2018 (arXiv:1710.11063), who give the mean in percent. A heatmap of ones
    loses nothing, and is the best map there is: the metric is only worth reading beside the area
    that a map covers (:func:`sparseness`).

    Args:
        model: in evaluation mode; it is left unchanged.
        images: (N, C, *size), as the model takes them.
        explanation: an explanation of them, or maps (N, K, *size) of any origin, whose positive
            part is divided by its maximum. A map without a positive value shows the baseline alone;
            a constant map is one of ones.
        baseline: what is seen where the heatmap is 0, as :func:`deletion` takes it; between 0 and 1
            it is mixed with the image. 0 is the mean colour of normalised images.
        options: see :class:`MetricOptions`.

    Returns:
        Values in [0, 1], lower is better; NaN where the probability is 0. One forward pass for each
        map.

    Raises:
        TypeError: something is of the wrong type.
        ValueError: something does not fit, see :class:`MetricInputs`, or what is followed is no
            probability: with ``activation="none"`` or a callable target a value outside [0, 1].

    Example:
        The probability is the mean of two pixels, of which the map shows one.

        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 1, bias=False)).eval()
        >>> model[1].weight.data = torch.tensor([[0.5, 0.5]])
        >>> images, maps = torch.ones(1, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]]])
        >>> average_drop(model, images, maps, activation="none", floors=()).mean
        0.5
    """
    inputs = MetricInputs("average_drop", model, images, explanation, **options)
    return _compared(
        inputs, baseline, lambda p, o: (p - o).clamp(min=0) / p.where(p > 0, torch.nan), "lower"
    )


def average_increase(
    model: nn.Module,
    images: Tensor,
    explanation: Explanation | Tensor,
    *,
    baseline: Baseline = 0.0,
    **options: Unpack[MetricOptions],
) -> MetricResult:
    r"""Ask whether a probability rises when the image is multiplied by its heatmap.

    .. math:: 1[o > p]

    with p and o as in :func:`average_drop`: the increase in confidence of Chattopadhay et al.,
    "Grad-CAM++", WACV 2018 (arXiv:1710.11063). A rise that rounding alone can make, some 1e-4 of
    the logit or less, is none, so that a heatmap of ones has no increase.

    Args:
        model: as :func:`average_drop` takes it.
        images: as :func:`average_drop` takes them.
        explanation: as :func:`average_drop` takes it.
        baseline: as :func:`average_drop` takes it.
        options: see :class:`MetricOptions`.

    Returns:
        Values 0 or 1, higher is better. One forward pass for each map.

    Raises:
        TypeError: as :func:`average_drop`.
        ValueError: as :func:`average_drop`.

    Example:
        Of the two pixels only the one that the map shows speaks for the score.

        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 1, bias=False)).eval()
        >>> model[1].weight.data = torch.tensor([[0.8, -0.3]])
        >>> images, maps = torch.ones(1, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]]])
        >>> average_increase(model, images, maps, activation="none", floors=()).mean
        1.0
    """
    inputs = MetricInputs("average_increase", model, images, explanation, **options)
    return _compared(inputs, baseline, _risen, "higher")


def average_gain(
    model: nn.Module,
    images: Tensor,
    explanation: Explanation | Tensor,
    *,
    baseline: Baseline = 0.0,
    **options: Unpack[MetricOptions],
) -> MetricResult:
    r"""Measure which part of what is missing a probability gains when multiplied by its heatmap.

    .. math:: \max(0, o - p) / (1 - p)

    with p and o as in :func:`average_drop`. Zhang et al., "Opti-CAM: Optimizing saliency maps for
    interpretability", 2023 (arXiv:2301.07002).

    Args:
        model: as :func:`average_drop` takes it.
        images: as :func:`average_drop` takes them.
        explanation: as :func:`average_drop` takes it.
        baseline: as :func:`average_drop` takes it.
        options: see :class:`MetricOptions`.

    Returns:
        Values in [0, 1], higher is better; NaN where the probability is 1. One forward pass for
        each map.

    Raises:
        TypeError: as :func:`average_drop`.
        ValueError: as :func:`average_drop`.

    Example:
        Of the missing 0.5 the map gains 0.3.

        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 1, bias=False)).eval()
        >>> model[1].weight.data = torch.tensor([[0.8, -0.3]])
        >>> images, maps = torch.ones(1, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]]])
        >>> round(average_gain(model, images, maps, activation="none", floors=()).mean, 3)
        0.6
    """
    inputs = MetricInputs("average_gain", model, images, explanation, **options)
    return _compared(
        inputs,
        baseline,
        lambda p, o: (o - p).clamp(min=0) / (1 - p).where(p < 1, torch.nan),
        "higher",
    )


def _risen(before: Tensor, after: Tensor) -> Tensor:
    # Beside other images the same image has a score that is some roundings off; a logit's rounding
    # moves a probability p by as much times p (1 - p).
    return (after - before > before * (1e-4 * (1 - before) + 1e-6)).float()


def _compared(
    inputs: MetricInputs,
    baseline: Baseline,
    compare: Callable[[Tensor, Tensor], Tensor],
    better: Better,
) -> MetricResult:
    """Compare the probabilities of images and of images times heatmaps."""
    before = checked_probabilities(inputs.metric, inputs.unchanged)
    start = baseline_images(check_baseline(baseline), inputs.images)
    return inputs.result(
        lambda maps: compare(before, masked_probabilities(inputs, start, heatmap.scale(maps))),
        better=better,
    )


def masked_probabilities(inputs: MetricInputs, start: Tensor, heat: Tensor) -> Tensor:
    """Return (N, K): the probabilities of images that are seen as far as heatmaps say.

    Args:
        inputs: with the model.
        start: (N, C, *size): what is seen where a heatmap is 0.
        heat: (N, M, *size) in [0, 1]; M is K, or 1 for a heatmap that stands for all targets.

    Raises:
        ValueError: they are no probabilities.
    """
    images, (n, m) = inputs.images, heat.shape[:2]
    flat = heat.to(images.dtype).flatten(0, 1)
    rows = torch.arange(n * m, device=images.device)

    def make(part: slice) -> Tensor:
        own = rows[part] // m
        return torch.lerp(start[own], images[own], flat[part].unsqueeze(1))

    scores = own_targets(inputs.scores(make, rows // m).unflatten(0, (n, m, 1))).squeeze(2)
    return checked_probabilities(inputs.metric, scores)


def checked_probabilities(metric: str, values: Tensor) -> Tensor:
    """Return what is followed, of unchanged or changed images, if it can be probabilities.

    Raises:
        ValueError: it cannot.
    """
    low, high = values.amin().item(), values.amax().item()
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise ValueError(
            f"{metric} compares probabilities, got values from {low:.3g} to {high:.3g}: choose "
            'activation="softmax" or "sigmoid", or targets that give probabilities'
        )
    return values.clamp(0, 1)
