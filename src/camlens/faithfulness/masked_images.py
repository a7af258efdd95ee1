"""What is left of a probability when an image is multiplied by its heatmap, or shown in part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import torch
from torch import Tensor, nn

from .. import heatmap
from ..baselines import Baseline, baseline_images, check_baseline
from ..explanation import Explanation
from .insertion_deletion import rise_blur
from .metric_inputs import MetricInputs, MetricOptions, own_targets
from .metric_result import Better, MetricResult
from .pixel_order import ranks


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
    al., "Grad-CAM++", WACV 2018 (arXiv:1710.11063), section 4.1. A heatmap of ones loses nothing:
    the metric is only worth reading beside the area that a map covers (:func:`sparseness`).

    Args:
        model: in evaluation mode; it is left unchanged.
        images: (N, C, *size), as the model takes them.
        explanation: an explanation of them, or maps (N, K, *size) of any origin, whose positive
            part is divided by its maximum.
        baseline: what is seen where the heatmap is 0, as :func:`deletion` takes it. 0 is the mean
            colour of normalised images.
        options: see :class:`MetricOptions`.

    Returns:
        Values in [0, 1], lower is better; NaN where the probability is 0. One forward pass for each
        map.

    Raises:
        TypeError: something is of the wrong type.
        ValueError: something does not fit, or what is followed is no probability.
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
    """Ask whether a probability rises when the image is multiplied by its heatmap.

    1 where it does, 0 where not: the increase in confidence of Chattopadhay et al., "Grad-CAM++",
    WACV 2018 (arXiv:1710.11063), section 4.1. See :func:`average_drop`, also for the arguments.

    Returns:
        Values 0 or 1, higher is better.
    """
    inputs = MetricInputs("average_increase", model, images, explanation, **options)
    return _compared(inputs, baseline, lambda p, o: (o > p).float(), "higher")


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

    Zhang et al., "Opti-CAM: Optimizing saliency maps for interpretability", 2023
    (arXiv:2301.07002). See :func:`average_drop`, also for the arguments.

    Returns:
        Values in [0, 1], higher is better; NaN where the probability is 1.
    """
    inputs = MetricInputs("average_gain", model, images, explanation, **options)
    return _compared(
        inputs,
        baseline,
        lambda p, o: (o - p).clamp(min=0) / (1 - p).where(p < 1, torch.nan),
        "higher",
    )


def sufficiency(
    model: nn.Module,
    images: Tensor,
    explanation: Explanation | Tensor,
    *,
    keep: float = 0.9,
    baseline: Baseline | None = None,
    **options: Unpack[MetricOptions],
) -> MetricResult:
    """Find the smallest share of the pixels that keeps the score, those with most heat first.

    A bisection over the number of pixels shown, of all images and targets at once. It finds a
    crossing: with one pixel fewer the score is below ``keep`` times the unchanged one, with so many
    it is not. Where the score rises and falls there may be a smaller one.

    Args:
        model: in evaluation mode; it is left unchanged.
        images: (N, C, *size), as the model takes them.
        explanation: an explanation of them, or maps (N, K, *size) of any origin.
        keep: which part of the unchanged score is to be kept, in (0, 1].
        baseline: the image that pixels are shown in; None: blurred, as :func:`insertion` has it.
        options: see :class:`MetricOptions`.

    Returns:
        Values in [0, 1], lower is better: 0 where no pixel is needed; NaN where the unchanged score
        is not positive, so that a part of it means nothing. About as many forward passes for each
        map and target as the number of pixels has binary digits.

    Raises:
        TypeError: something is of the wrong type.
        ValueError: something does not fit, see :class:`MetricInputs`.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 1, bias=False)).eval()
        >>> model[1].weight.data = torch.tensor([[0.0, 5.0, 4.0, 1.0]])
        >>> images = torch.ones(1, 1, 1, 4)
        >>> maps = torch.tensor([[[[0.1, 0.9, 0.8, 0.2]]]])
        >>> sufficiency(
        ...     model, images, maps, baseline=0.0, activation="none", floors=()
        ... ).mean
        0.5
    """
    inputs = MetricInputs("sufficiency", model, images, explanation, **options)
    if not 0 < keep <= 1:
        raise ValueError(f"expected keep as a part of the score in (0, 1], got {keep!r}")
    start = baseline_images(rise_blur if baseline is None else check_baseline(baseline), images)
    n, k, pixels = *inputs.unchanged.shape, images[0, 0].numel()
    # The unchanged score itself may be some roundings lower beside other images.
    goal = (keep - 1e-6) * inputs.unchanged
    rows = torch.arange(n * k, device=images.device)

    def values_of(maps: Tensor) -> Tensor:
        places = ranks(maps, inputs.seeds).expand(n, k, *maps.shape[2:]).flatten(0, 1)

        def enough(shown: Tensor) -> Tensor:
            """Return (N, K): whether so many pixels keep the score."""
            limits = shown.flatten()

            def make(part: slice) -> Tensor:
                own = rows[part] // k
                limit = limits[part].view(-1, *[1] * (images.ndim - 2))
                return images[own].where((places[part] < limit).unsqueeze(1), start[own])

            scores = inputs.scores(make, rows // k)
            return scores.gather(1, (rows % k).unsqueeze(1)).view(n, k) >= goal

        few, many = torch.zeros_like(goal).long(), torch.full_like(goal, pixels).long()
        many = torch.where(enough(few), 0, many)
        while bool((many - few > 1).any()):
            middle = (few + many) // 2
            kept = enough(middle)
            few, many = few.where(kept | (many == 0), middle), middle.where(kept, many)
        return (many / pixels).where(inputs.unchanged > 0, torch.nan)

    return inputs.result(values_of, better="lower")


def _compared(
    inputs: MetricInputs,
    baseline: Baseline,
    compare: Callable[[Tensor, Tensor], Tensor],
    better: Better,
) -> MetricResult:
    """Compare the probabilities of images and of images times heatmaps."""
    images, before = inputs.images, inputs.unchanged
    if ((before < 0) | (before > 1)).any():
        raise ValueError(
            f"{inputs.metric} compares probabilities, got values from {before.amin().item():.3g} "
            f"to {before.amax().item():.3g}: choose an activation or targets that give some"
        )
    start = baseline_images(check_baseline(baseline), images)
    n = len(images)

    def values_of(maps: Tensor) -> Tensor:
        heat, m = heatmap.scale(maps).to(images.dtype).flatten(0, 1), maps.shape[1]
        rows = torch.arange(n * m, device=images.device)

        def make(part: slice) -> Tensor:
            own = rows[part] // m
            return torch.lerp(start[own], images[own], heat[part].unsqueeze(1))

        scores = inputs.scores(make, rows // m).unflatten(0, (n, m, 1))
        return compare(before, own_targets(scores).squeeze(2))

    return inputs.result(values_of, better=better)
