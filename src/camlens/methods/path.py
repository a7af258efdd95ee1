"""Formulas of path methods, which sum gradients between a baseline image and the image.

Gradients are (N, K, C, *size) for N images and K targets. The functions do not run a model.
"""

from __future__ import annotations

import random

from jaxtyping import Float
from torch import Tensor

Signed = Float[Tensor, "n k c *size"]


def midpoints(steps: int) -> list[float]:
    """Return the midpoints of ``steps`` equal parts of the interval from 0 to 1.

    Example:
        >>> midpoints(2)
        [0.25, 0.75]
    """
    return [(step + 0.5) / steps for step in range(steps)]


def finer_midpoints(steps: int) -> list[float]:
    """Return the points of ``midpoints(3 * steps)`` that are not in ``midpoints(steps)``.

    Example:
        >>> [round(point, 3) for point in finer_midpoints(1)]
        [0.167, 0.833]
    """
    return [point for i, point in enumerate(midpoints(3 * steps)) if i % 3 != 1]


def integrated_gradients(
    total: Signed, steps: int, way: Float[Tensor, "n c *size"]
) -> Float[Tensor, "n k c *size"]:
    r"""Integrated gradients: mean gradient between baseline and image, times their difference.

    .. math:: A_i = (x_i - b_i) \int_0^1 \frac{\partial f}{\partial x_i}
              \big(b + \alpha (x - b)\big)\, d\alpha

    The integral is approximated by a sum at the midpoints of equal steps.

    Source: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017
    (arXiv:1703.01365), equation 1; equation 3 takes the steps' right ends.

    Args:
        total: (N, K, C, *size), the sum of the gradients at the midpoints.
        steps: number of midpoints.
        way: (N, C, *size), x - b, the image minus the baseline.

    Returns:
        (N, K, C, *size), signed.

    Example:
        The score :math:`x^2` from 0 to 3, with a sum of gradients of 6 at two midpoints.

        >>> import torch
        >>> total, way = torch.tensor([[[[6.0]]]]), torch.tensor([[[3.0]]])
        >>> integrated_gradients(total, 2, way).item()
        9.0
    """
    return total / steps * way.unsqueeze(1)


def completeness_gap(
    attributions: Signed, difference: Float[Tensor, "n k"]
) -> Float[Tensor, "n k"]:
    r"""Completeness gap: distance of the attributions' sum from the difference of the scores.

    .. math:: \left| \sum_i A_i - (f(x) - f(b)) \right|

    For the exact integral it is zero.

    Source: Sundararajan et al. 2017 (arXiv:1703.01365), proposition 1.

    Args:
        attributions: (N, K, C, *size), A.
        difference: (N, K), f(x) - f(b).

    Returns:
        (N, K), not negative.

    Example:
        >>> import torch
        >>> completeness_gap(torch.tensor([[[[2.0, 3.0]]]]), torch.tensor([[4.5]])).item()
        0.5
    """
    return (attributions.flatten(2).sum(dim=2) - difference).abs()


def positive_evidence(attributions: Signed) -> Float[Tensor, "n k *size"]:
    """Return the positive part of the attributions' sum over an image's channels.

    Example:
        >>> import torch
        >>> positive_evidence(torch.tensor([[[[3.0, 1.0], [-1.0, -2.0]]]])).tolist()
        [[[2.0, 0.0]]]
    """
    return attributions.sum(dim=2).relu()


def expected_draws(samples: int, baselines: int, seed: int) -> list[tuple[int, float]]:
    """Return for each sample the index of its baseline, and its position between 0 and 1.

    The positions are stratified, one in each of ``samples`` equal parts, and the numbers of uses
    of the baselines differ by at most one. The expected value is that of independent draws, with
    less noise.

    Args:
        samples: number of draws.
        baselines: number of baselines.
        seed: seed of the draws.

    Example:
        >>> draws = expected_draws(4, 2, seed=0)
        >>> sorted(pick for pick, _ in draws), sorted(int(4 * alpha) for _, alpha in draws)
        ([0, 0, 1, 1], [0, 1, 2, 3])
    """
    generator = random.Random(seed)
    picks: list[int] = []
    while len(picks) < samples:
        picks += generator.sample(range(baselines), baselines)
    alphas = [(step + generator.random()) / samples for step in range(samples)]
    generator.shuffle(alphas)
    return list(zip(picks[:samples], alphas, strict=True))
