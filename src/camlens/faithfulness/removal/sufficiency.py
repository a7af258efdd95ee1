"""Sufficiency: how few pixels, those with most heat first, keep the score."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from ...baselines import Baseline, baseline_images, check_baseline
from ...explanation import Explanation
from ..metric.inputs import MetricInputs
from ..metric.options import MetricOptions
from ..metric.pixel_order import ranks
from ..metric.result import MetricResult
from .insertion_deletion import rise_blur


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

    Pixels are shown in a blurred image, in the order of :func:`insertion`. A bisection over their
    number, of all images and targets at once, looks for where the score reaches ``keep`` times the
    unchanged one. It assumes that showing more pixels does not lower the score. Where it does, the
    score crosses that line several times, and the value is one of the crossings, not always the
    first: with one pixel fewer the score is below the line, with so many it is not. A measure of
    this kind is the smallest sufficient region of Dabkowski and Gal, "Real Time Image Saliency for
    Black Box Classifiers", NeurIPS 2017 (arXiv:1705.07857); here it is of pixels instead of boxes.

    Args:
        model: in evaluation mode; it is left unchanged.
        images: (N, C, *size), as the model takes them.
        explanation: an explanation of them, or maps (N, K, *size) of any origin. Pixels of equal
            value are in random order, so that a constant map is a random one.
        keep: which part of the unchanged score is to be kept, in (0, 1].
        baseline: the image that pixels are shown in; None: blurred, as :func:`insertion` has it.
        options: see :class:`MetricOptions`.

    Returns:
        Values in [0, 1], lower is better: 0 where the image without any pixel keeps the score, 1
        where only all of them do. NaN where the unchanged score is not positive, so that a part of
        it means nothing. At most 1 + log2(pixels) forward passes, rounded up, for each map and
        target, of floors too: 17 for 224 x 224 pixels.

    Raises:
        TypeError: something is of the wrong type.
        ValueError: something does not fit, see :class:`MetricInputs`, or ``keep`` is out of range.

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
        places = ranks(maps, inputs.seeds).flatten(0, 1)
        which = rows if maps.shape[1] == k else rows // k  # one map stands for all targets

        def enough(shown: Tensor) -> Tensor:
            """Return (N, K): whether so many pixels keep the score."""
            limits = shown.flatten()

            def make(part: slice) -> Tensor:
                own = rows[part] // k
                limit = limits[part].view(-1, *[1] * (images.ndim - 2))
                return images[own].where((places[which[part]] < limit).unsqueeze(1), start[own])

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
