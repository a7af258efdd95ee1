"""Metrics of a map's shape: how concentrated it is, and whether its values sum to the score."""

from __future__ import annotations

import dataclasses
from typing import Unpack

import torch
from torch import Tensor, nn

from ..baselines import Baseline, baseline_images, check_baseline
from ..explanation import Explanation
from .metric.inputs import MetricInputs
from .metric.options import MetricOptions
from .metric.result import MetricResult


def sparseness(
    model: nn.Module | None,
    images: Tensor,
    explanation: Explanation | Tensor,
    **options: Unpack[MetricOptions],
) -> MetricResult:
    r"""Return the Gini index of a map's absolute values.

    .. math:: G = \frac{\sum_i (2 i - n - 1)\, |a|_{(i)}}{n \sum_i |a|_{(i)}}

    with :math:`|a|_{(1)} \le \cdots \le |a|_{(n)}`. Chalasani et al., "Concise Explanations of
    Neural Networks using Adversarial Training", ICML 2020 (arXiv:1810.06583). The index measures
    how few pixels hold the heat, not whether they are the right ones.

    Args:
        model: not run; may be None.
        images: (N, C, *size).
        explanation: an explanation of the images, or maps (N, K, *size) from any source.
        options: see :class:`MetricOptions`.

    Returns:
        Values from 0 (a constant map) to nearly 1 (a single pixel); higher is taken as better. NaN
        for a map of zeros.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the arguments do not match, see :class:`MetricInputs`.

    Example:
        >>> maps = torch.tensor([[[[0.0, 0.0, 0.0, 1.0]]]])
        >>> sparseness(None, torch.zeros(1, 3, 1, 4), maps, floors=()).mean
        0.75
    """
    inputs = MetricInputs("sparseness", None, images, explanation, **options)

    def values_of(maps: Tensor) -> Tensor:
        values = maps.flatten(2).abs().sort(dim=2).values.double()
        n = values.shape[2]
        weights = 2 * torch.arange(1, n + 1, device=values.device, dtype=values.dtype) - n - 1
        return (values * weights).sum(dim=2) / (n * values.sum(dim=2))  # 0 / 0 is NaN

    return inputs.result(values_of, better="higher")


def complexity(
    model: nn.Module | None,
    images: Tensor,
    explanation: Explanation | Tensor,
    **options: Unpack[MetricOptions],
) -> MetricResult:
    r"""Return the entropy of a map's absolute values, normalised to sum to 1, in nats.

    .. math:: H = -\sum_p s_p \ln s_p, \quad s_p = |a_p| / \sum_q |a_q|

    Bhatt, Weller and Moura, "Evaluating and Aggregating Feature-based Model Explanations", IJCAI
    2020 (arXiv:2005.00631), definition 4.

    Args:
        model: not run; may be None.
        images: (N, C, *size).
        explanation: see :func:`sparseness`.
        options: see :class:`MetricOptions`.

    Returns:
        Values from 0 (a single pixel) to the logarithm of the number of pixels (a constant map);
        lower is taken as better. NaN for a map of zeros.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the arguments do not match, see :class:`MetricInputs`.

    Example:
        >>> maps = torch.tensor([[[[1.0, 1.0]]]])
        >>> round(complexity(None, torch.zeros(1, 3, 1, 2), maps, floors=()).mean, 4)
        0.6931
    """
    inputs = MetricInputs("complexity", None, images, explanation, **options)

    def values_of(maps: Tensor) -> Tensor:
        values = maps.flatten(2).abs().double()
        entropy: Tensor = torch.special.entr(values / values.sum(dim=2, keepdim=True)).sum(dim=2)
        return entropy

    return inputs.result(values_of, better="lower")


def completeness(
    model: nn.Module,
    images: Tensor,
    explanation: Explanation,
    *,
    baseline: Baseline = 0.0,
    **options: Unpack[MetricOptions],
) -> MetricResult:
    r"""Measure how far the attributions' sum is from the score's change, relative to that change.

    .. math:: \frac{|\sum_p a_p - (f(x) - f(b))|}{|f(x) - f(b)|}

    The completeness axiom of Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep
    Networks", ICML 2017 (arXiv:1703.01365), section 3; the change is from the baseline b to the
    image x. It does not depend on where the attributions are. Methods that are complete by
    construction (integrated gradients, LRP) deviate only by their approximation. There are no
    floors: the sum of a map in an arbitrary unit means nothing.

    Args:
        model: in evaluation mode; it is left unchanged.
        images: (N, C, *size), as the model takes them.
        explanation: an explanation with signed ``gradients``, such as that of
            :class:`camlens.IntegratedGradients`; derivatives are multiplied by the difference of
            the image and the baseline. Methods that are complete over biases or a layer's channels
            (:class:`camlens.FullGrad`, :class:`camlens.LayerIntegratedGradients`) keep no signed
            values of pixels and are rejected.
        baseline: the baseline that the method used.
        options: see :class:`MetricOptions`. The score itself is tracked, whatever the activation.

    Returns:
        Values of at least 0, lower is better; infinite if the score does not change and the
        attributions do not sum to zero.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the arguments do not match, or the explanation has no signed attributions.
    """
    given = explanation.method if isinstance(explanation, Explanation) else "maps alone"
    signed = explanation.gradients if isinstance(explanation, Explanation) else None
    if signed is None or explanation.raw.shape[2:] != signed.shape[3:]:
        raise ValueError(
            "expected an explanation with signed attributions of each pixel in the unit of the "
            f"score, got {given}, without such attributions: use a method that is complete over "
            "pixels, such as camlens.IntegratedGradients or camlens.LRP"
        )
    options |= {"activation": "none", "floors": ()}
    inputs = MetricInputs("completeness", model, images, explanation, **options)
    start = baseline_images(check_baseline(baseline), images)
    every = torch.arange(len(images), device=images.device)
    change = inputs.unchanged - inputs.scores(start.__getitem__, every)
    total = inputs.attributions(start).flatten(2).sum(dim=2)
    gap = (total - change).abs()
    values = torch.where(gap > 0, gap / change.abs(), gap)
    return dataclasses.replace(inputs.result(lambda maps: values, better="lower"), floor_values={})
