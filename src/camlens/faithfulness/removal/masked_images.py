"""Metrics that compare the probability of an image with that of the image times its heatmap."""

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

#: Tolerance by which probabilities that a model computes itself may lie outside [0, 1].
_ROUNDING = 1e-3


def average_drop(
    model: nn.Module,
    images: Tensor,
    explanation: Explanation | Tensor,
    *,
    baseline: Baseline = 0.0,
    **options: Unpack[MetricOptions],
) -> MetricResult:
    r"""Measure the relative drop of the probability when the image is multiplied by its heatmap.

    .. math:: \max(0, p - o) / p

    with p the probability of the image and o that of the image times the heatmap. Chattopadhay et
    al., "Grad-CAM++", WACV 2018 (arXiv:1710.11063), who report the mean in percent. A heatmap of
    ones loses nothing and scores best, so read this metric together with the area that a map
    covers (:func:`sparseness`).

    Args:
        model: in evaluation mode; it is left unchanged.
        images: (N, C, *size), as the model takes them.
        explanation: an explanation of the images, or maps (N, K, *size) from any source, whose
            positive part is divided by its maximum. A map without positive values shows only the
            baseline; a constant positive map shows the whole image.
        baseline: pixels shown where the heatmap is 0, in the forms that :func:`deletion` accepts;
            where the heatmap is between 0 and 1 they are mixed with the image. 0 is the mean colour
            of normalised images.
        options: see :class:`MetricOptions`.

    Returns:
        Values in [0, 1], lower is better; NaN if the probability is 0. One forward pass for each
        map.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the arguments do not match, see :class:`MetricInputs`, or the tracked score is
            not a probability: outside [0, 1] with ``activation="none"`` or a callable target.

    Example:
        The probability is the mean of two pixels; the map shows one of them.

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
    r"""Check whether the probability rises when the image is multiplied by its heatmap.

    .. math:: 1[o > p]

    with p and o as in :func:`average_drop`: the increase in confidence of Chattopadhay et al.,
    "Grad-CAM++", WACV 2018 (arXiv:1710.11063). A rise within rounding, about 1e-4 of the logit or
    less, does not count, so a heatmap of ones has no increase.

    Args:
        model: see :func:`average_drop`.
        images: see :func:`average_drop`.
        explanation: see :func:`average_drop`.
        baseline: see :func:`average_drop`.
        options: see :class:`MetricOptions`.

    Returns:
        Values 0 or 1, higher is better. One forward pass for each map.

    Raises:
        TypeError: see :func:`average_drop`.
        ValueError: see :func:`average_drop`.

    Example:
        Only the pixel that the map shows raises the score; the other one lowers it.

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
    r"""Measure the relative gain of the probability when the image is multiplied by its heatmap.

    .. math:: \max(0, o - p) / (1 - p)

    with p and o as in :func:`average_drop`. Zhang et al., "Opti-CAM: Optimizing saliency maps for
    interpretability", 2023 (arXiv:2301.07002).

    Args:
        model: see :func:`average_drop`.
        images: see :func:`average_drop`.
        explanation: see :func:`average_drop`.
        baseline: see :func:`average_drop`.
        options: see :class:`MetricOptions`.

    Returns:
        Values in [0, 1], higher is better; NaN if the probability is 1. One forward pass for each
        map.

    Raises:
        TypeError: see :func:`average_drop`.
        ValueError: see :func:`average_drop`.

    Example:
        The probability is 0.5, so it can gain 0.5; the map gains 0.3.

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
    # The score of the same image differs by rounding when it runs in another batch; rounding a
    # logit by e moves a probability p by e p (1 - p).
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
    """Return (N, K): the probabilities of images masked by heatmaps.

    Args:
        inputs: inputs with a model.
        start: (N, C, *size): pixels shown where a heatmap is 0.
        heat: (N, M, *size) in [0, 1]; M is K, or 1 for a heatmap that stands for all targets.

    Raises:
        ValueError: the tracked scores are not probabilities.
    """
    images, (n, m) = inputs.images, heat.shape[:2]
    flat = heat.to(images.dtype).flatten(0, 1)
    rows = torch.arange(n * m, device=images.device)

    def make(part: slice) -> Tensor:
        image = rows[part] // m
        return torch.lerp(start[image], images[image], flat[part].unsqueeze(1))

    scores = own_targets(inputs.scores(make, rows // m).unflatten(0, (n, m, 1))).squeeze(2)
    return checked_probabilities(inputs.metric, scores)


def checked_probabilities(metric: str, values: Tensor) -> Tensor:
    """Return tracked scores clamped to [0, 1], after checking that they can be probabilities.

    Raises:
        ValueError: a score lies outside [0, 1].
    """
    low, high = values.amin().item(), values.amax().item()
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise ValueError(
            f"{metric} compares probabilities, got values from {low:.3g} to {high:.3g}: choose "
            'activation="softmax" or "sigmoid", or targets that return probabilities'
        )
    return values.clamp(0, 1)
