"""Sensitivity: how much an explanation changes when the image changes slightly."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from ...explainers.base import Explainer
from ...model import check_images
from ...options import integer
from ..metric.floors import FLOORS
from ..metric.inputs import MetricInputs, explained
from ..metric.noise import noise_of_each
from ..metric.options import MetricOptions
from ..metric.result import MetricResult

#: Distance between the seeds of two noise samples.
_SAMPLES = 15_485_863


def sensitivity(
    model: nn.Module,
    images: Tensor,
    explainer: Explainer,
    *,
    radius: float = 0.02,
    samples: int = 10,
    **options: Unpack[MetricOptions],
) -> MetricResult:
    r"""Measure the largest relative change of a map when noise is added to the image.

    .. math:: \mathrm{SENS} = \max_{\|d\|_\infty \le r} \|\Phi(x + d) - \Phi(x)\| / \|\Phi(x)\|

    Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019
    (arXiv:1901.09392), section 4; the maximum is taken over random draws. :math:`\Phi` are the raw
    maps, for the targets of the unchanged images. A stable map need not be right: a map that
    ignores the image, such as the floor ``"centre"``, never changes.

    Args:
        model: the explainer's model, in evaluation mode.
        images: (N, C, *size), as the model takes them.
        explainer: explains the images; it runs ``samples`` + 1 times.
        radius: r, in the images' own unit.
        samples: number of noise draws.
        options: see :class:`MetricOptions`.

    Returns:
        Values of at least 0, lower is better; NaN if the unchanged image has no evidence.

    Raises:
        TypeError: an argument has the wrong type, such as a map instead of an explainer.
        ValueError: the arguments do not match, or the explainer has another model.
    """
    integer("samples", samples)
    if not radius > 0:
        raise ValueError(f"expected a radius above 0, got {radius!r}")
    images = check_images(images).detach()
    explanation, again = explained(model, images, explainer, **options)
    inputs = MetricInputs("sensitivity", None, images, explanation, **options)
    worst = torch.zeros((), device="cpu")
    floors = dict.fromkeys(inputs.options.floors, worst)
    before = {name: FLOORS[name](images, inputs.seeds) for name in floors}
    for sample in range(samples):
        seeds = inputs.seeds + (sample + 1) * _SAMPLES
        noise = 2 * noise_of_each(torch.rand, images.shape[1:], seeds) - 1
        changed = images + radius * noise.to(images)
        moved = again(changed).raw
        worst = torch.maximum(worst.to(moved), _change(explanation.raw, moved))
        for name, most in floors.items():
            far = _change(before[name], FLOORS[name](changed, seeds))
            floors[name] = torch.maximum(most.to(far), far)
    return MetricResult(
        metric="sensitivity",
        values=worst,
        better="lower",
        floor_values={name: most.expand_as(worst) for name, most in floors.items()},
        seed=inputs.options.seed,
    )


def _change(before: Tensor, after: Tensor) -> Tensor:
    """Return (N, K): the change of maps relative to their norm; NaN for maps of zeros."""
    length: Tensor = torch.linalg.vector_norm(before.flatten(2), dim=2)
    moved: Tensor = torch.linalg.vector_norm((after - before).flatten(2), dim=2)
    return moved / length.where(length > 0, torch.nan)
