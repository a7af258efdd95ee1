"""Deletion and insertion: track a score as pixels are removed or revealed in the map's order."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv2d, conv3d

from ...baselines import Baseline, baseline_images, check_baseline
from ...explainers.base import without_autocast
from ...explanation import Explanation
from ...options import integer
from ..metric.inputs import MetricInputs, own_targets
from ..metric.options import MetricOptions
from ..metric.pixel_order import ranks
from ..metric.result import MetricResult

_CONVOLUTIONS = {1: conv1d, 2: conv2d, 3: conv3d}


def deletion(
    model: nn.Module,
    images: Tensor,
    explanation: Explanation | Tensor,
    *,
    step: int | None = None,
    baseline: Baseline = 0.0,
    **options: Unpack[MetricOptions],
) -> MetricResult:
    """Track the score as pixels are removed, those with the largest values first.

    The value is the area under the curve, the mean score over the share of removed pixels. If
    the map ranks the pixels that the score depends on first, the score falls early: a low value.
    Petsiuk et al., "RISE", BMVC 2018 (arXiv:1806.07421), section 4.2, and their code (eclique/RISE,
    evaluation.py): all channels of a pixel change together, the curve includes the unchanged image,
    and the area is integrated by trapezoids. Pixels of equal value are in random order.

    Args:
        model: in evaluation mode; it is left unchanged.
        images: (N, C, *size), as the model takes them.
        explanation: an explanation of the images, or maps (N, K, *size) from any source.
        step: number of pixels that change between two points of the curve. None: the length of the
            last side, such as 224 of 224 x 224 pixels, as in the authors' demonstration; their runs
            over a data set change 8 times as many.
        baseline: replacement for removed pixels: a number, a tensor that broadcasts to the images
            or a function of the images. 0, as in the authors' code, is the mean colour of
            normalised images.
        options: see :class:`MetricOptions`.

    Returns:
        Values in the unit of the tracked score, lower is better; ``curve`` begins with the
        unchanged image. A curve of S steps takes S forward passes for each map.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the arguments do not match, see :class:`MetricInputs`.

    Example:
        The score is the left pixel, which the map marks.

        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 1)).eval()
        >>> model[1].weight.data, model[1].bias.data = torch.tensor([[1.0, 0.0]]), torch.zeros(1)
        >>> images, maps = torch.ones(1, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]]])
        >>> found = deletion(model, images, maps, step=1, activation="none", floors=())
        >>> found.curve.tolist(), found.values.item()
        ([[[1.0, 0.0, 0.0]]], 0.25)
    """
    inputs = MetricInputs("deletion", model, images, explanation, **options)
    end = baseline_images(check_baseline(baseline), images)
    return _followed(inputs, images, end, step, larger=False)


def insertion(
    model: nn.Module,
    images: Tensor,
    explanation: Explanation | Tensor,
    *,
    step: int | None = None,
    baseline: Baseline | None = None,
    **options: Unpack[MetricOptions],
) -> MetricResult:
    """Track the score as pixels are revealed in a blurred image, largest values first.

    The value is the area under the curve. If the map ranks the pixels that the score depends on
    first, the score rises early: a high value. The source is that of :func:`deletion`.

    Args:
        model: in evaluation mode; it is left unchanged.
        images: (N, C, *size), as the model takes them.
        explanation: an explanation of the images, or maps (N, K, *size) from any source.
        step: see :func:`deletion`.
        baseline: the image in which pixels are revealed, in the forms that :func:`deletion`
            accepts. None: the images, blurred as in the authors' code (:func:`rise_blur`).
        options: see :class:`MetricOptions`.

    Returns:
        Values in the unit of the tracked score, higher is better; ``curve`` begins with the blurred
        image. A curve of S steps takes S + 1 forward passes for each map.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the arguments do not match, see :class:`MetricInputs`.
    """
    inputs = MetricInputs("insertion", model, images, explanation, **options)
    start = baseline_images(rise_blur if baseline is None else check_baseline(baseline), images)
    return _followed(inputs, start, images, step, larger=True)


def rise_blur(images: Tensor) -> Tensor:
    """Blur images like RISE's code, with a nearly flat kernel of 11 pixels and zero padding.

    The kernel is the response of scipy's Gaussian filter, with a standard deviation of 5 pixels, to
    an impulse in 11 pixels; the filter reflects at their ends, which flattens the kernel.

    Args:
        images: (N, C, *size).

    Example:
        >>> images = torch.zeros(1, 1, 21)
        >>> images[0, 0, 10] = 1
        >>> [round(value, 3) for value in rise_blur(images)[0, 0, 4:11].tolist()]
        [0.0, 0.088, 0.089, 0.09, 0.092, 0.093, 0.094]
    """
    channels, axes = images.shape[1], images.ndim - 2
    wide = images.to(torch.promote_types(images.dtype, torch.float32))
    kernel = _rise_kernel().to(wide)
    blurred = wide
    for axis in range(axes):
        shape = [-1 if position == axis else 1 for position in range(axes)]
        weight = kernel.view(shape).expand(channels, 1, *[-1] * axes)
        sides = tuple(5 * (position == axis) for position in range(axes))
        with without_autocast(images):
            blurred = _CONVOLUTIONS[axes](blurred, weight, padding=sides, groups=channels)
    return blurred.to(images)


def _rise_kernel() -> Tensor:
    """Return the Gaussian's response to an impulse amid 11 pixels, reflected at both ends."""
    offsets = torch.arange(
        -20, 21, device="cpu"
    )  # scipy truncates the Gaussian at four standard deviations
    weights = (-0.5 * (offsets.double() / 5).square()).exp()
    weights = weights / weights.sum()
    places = (torch.arange(11, device="cpu").unsqueeze(1) + offsets) % 22
    mirrored = places.where(places < 11, 21 - places)
    kernel: Tensor = (weights * (mirrored == 5)).sum(dim=1)
    return kernel


def _followed(
    inputs: MetricInputs, start: Tensor, end: Tensor, step: int | None, *, larger: bool
) -> MetricResult:
    """Track the score from one image to another, changing pixels with the largest values first."""
    images = inputs.images
    n, pixels = len(images), images[0, 0].numel()
    each = images.shape[-1] if step is None else integer("step", step)
    counts = torch.arange(0, pixels + each, each, device=images.device).clamp(max=pixels)
    first = 0 if start is not images else 1  # the unchanged image has been scored already
    changed = counts[first:]

    def values_of(maps: Tensor) -> tuple[Tensor, Tensor]:
        places = ranks(maps, inputs.seeds).flatten(0, 1)
        m, s = maps.shape[1], len(changed)
        rows = torch.arange(n * m * s, device=images.device)
        source, which, points = rows // (m * s), rows // s, rows % s

        def make(part: slice) -> Tensor:
            image = source[part]
            limits = changed[points[part]].view(-1, *[1] * (images.ndim - 2))
            gone = (places[which[part]] < limits).unsqueeze(1)
            return end[image].where(gone, start[image])

        scores = inputs.scores(make, source).unflatten(0, (n, m, s))
        curve = own_targets(scores)
        if first:
            curve = torch.cat([inputs.unchanged.unsqueeze(2), curve], dim=2)
        return torch.trapezoid(curve, counts / pixels, dim=2), curve

    return inputs.result(values_of, better="higher" if larger else "lower", steps=counts / pixels)
