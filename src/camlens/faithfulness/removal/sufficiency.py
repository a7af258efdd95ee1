"""Sufficiency: the smallest share of the hottest pixels that preserves the score."""

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
    """Find the smallest share of the hottest pixels that preserves the score.

    Pixels are revealed in a blurred image, in the order of :func:`insertion`. A bisection over
    their number, for all images and targets at once, finds where the score reaches ``keep`` times
    the unchanged score. It assumes that revealing more pixels does not lower the score. If it does,
    the score crosses that threshold several times, and the value is one of the crossings, not
    always the first: at the returned number of pixels the score reaches the threshold, but with
    one fewer it does not. Similar to the smallest sufficient region of Dabkowski and Gal, "Real
    Time Image Saliency for Black Box Classifiers", NeurIPS 2017 (arXiv:1705.07857), for pixels
    instead of boxes.

    Args:
        model: in evaluation mode; it is left unchanged.
        images: (N, C, *size), as the model takes them.
        explanation: an explanation of the images, or maps (N, K, *size) from any source. Pixels of
            equal value are in random order, so a constant map acts as a random one.
        keep: the fraction of the unchanged score to preserve, in (0, 1].
        baseline: the image in which pixels are revealed; None: blurred, see :func:`insertion`.
        options: see :class:`MetricOptions`.

    Returns:
        Values in [0, 1], lower is better: 0 if the image without any pixel preserves the score, 1
        if only the whole image does. NaN if the unchanged score is not positive, so that a part of
        it is not defined. At most 1 + log2(pixels) forward passes, rounded up, for each map and
        target, including floors: 17 for 224 x 224 pixels.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the arguments do not match, see :class:`MetricInputs`, or ``keep`` is out of
            range.

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
        raise ValueError(f"expected keep as a fraction of the score in (0, 1], got {keep!r}")
    start = baseline_images(rise_blur if baseline is None else check_baseline(baseline), images)
    n, k, pixels = *inputs.unchanged.shape, images[0, 0].numel()
    # The unchanged score may be lower by rounding when the image runs in another batch.
    goal = (keep - 1e-6) * inputs.unchanged
    rows = torch.arange(n * k, device=images.device)

    def values_of(maps: Tensor) -> Tensor:
        places = ranks(maps, inputs.seeds).flatten(0, 1)
        which = rows if maps.shape[1] == k else rows // k  # one map stands for all targets

        def enough(shown: Tensor) -> Tensor:
            """Return (N, K): whether the given numbers of pixels preserve the score."""
            limits = shown.flatten()

            def make(part: slice) -> Tensor:
                image = rows[part] // k
                limit = limits[part].view(-1, *[1] * (images.ndim - 2))
                return images[image].where((places[which[part]] < limit).unsqueeze(1), start[image])

            scores = inputs.scores(make, rows // k)
            return scores.gather(1, (rows % k).unsqueeze(1)).view(n, k) >= goal

        few, many = torch.zeros_like(goal).long(), torch.full_like(goal, pixels).long()
        many = torch.where(enough(few), 0, many)
        while bool((many - few > 1).any()):
            middle = (few + many) // 2
            preserved = enough(middle)
            few, many = few.where(preserved | (many == 0), middle), middle.where(preserved, many)
        return (many / pixels).where(inputs.unchanged > 0, torch.nan)

    return inputs.result(values_of, better="lower")
