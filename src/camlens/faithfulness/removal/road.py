"""ROAD (Remove and Debias): track a score as pixels are removed and imputed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Unpack

import torch
from torch import Tensor, nn

from ...explanation import Explanation
from ..metric.inputs import MetricInputs, own_targets
from ..metric.noise import noise_of_each
from ..metric.options import MetricOptions
from ..metric.pixel_order import ranks
from ..metric.result import MetricResult
from .imputation import check_planar, impute

#: Which pixels are removed first: those with the least or with the most heat.
_ORDERS = {"combined": ("least", "most"), "least": ("least",), "most": ("most",)}


def road(
    model: nn.Module,
    images: Tensor,
    explanation: Explanation | Tensor,
    *,
    order: Literal["combined", "most", "least"] = "combined",
    percentages: Sequence[float] = (10, 20, 30, 40, 50, 60, 70, 80, 90),
    noise: float = 0.01,
    **options: Unpack[MetricOptions],
) -> MetricResult:
    r"""Track the score as shares of an image's pixels are removed and imputed from the others.

    Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML 2022
    (arXiv:2202.00449): removed pixels become the noisy means of their neighbours
    (:func:`camlens.faithfulness.impute`), so that the image hardly reveals which pixels were
    removed. With :math:`s_p` the score after removing p percent, the value is the mean over the
    percentages of :math:`s_p`, or of half the difference of the two orders:

    .. math:: \frac{1}{|P|} \sum_{p \in P} \frac{s_p^{LeRF} - s_p^{MoRF}}{2}

    The paper reports the accuracy over a data set; camlens reports each image's score, whose mean
    gives a curve of the same kind. Combining the two orders comes from the grad-cam library. The
    stated share of pixels is removed exactly, rounded to whole pixels. Pixels of equal value are
    removed in random order, so a constant map is removed at random, and zeros are never removed all
    at once by a threshold.

    ROAD, like ROAR, favours blurry maps, since large smooth holes are imputed worst: compare with
    the floor ``"blurred_random"``.

    Args:
        model: in evaluation mode; it is left unchanged.
        images: (N, C, H, W), as the model takes them.
        explanation: an explanation of the images, or maps (N, K, H, W) from any source.
        order: ``"most"`` removes the pixels with the largest values first (MoRF; lower is better),
            ``"least"`` those with the smallest (LeRF; higher is better). ``"combined"`` is half of
            the difference, LeRF minus MoRF (higher is better).
        percentages: percentages of the pixels to remove, in (0, 100).
        noise: standard deviation of the noise added to imputed values, in the images' own unit. The
            authors add 0.01 to images in [0, 1], before they are normalised. Each image has one
            draw, the same for all shares and maps.
        options: see :class:`MetricOptions`.

    Returns:
        The mean over the percentages, and the ``curve`` over them, in the unit of the tracked
        score. Each map takes one forward pass and one imputation per percentage, twice as many for
        ``"combined"``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the arguments do not match, see :class:`MetricInputs`; images are not 2-D, or a
            percentage removes none or all of their pixels.

    Example:
        The score is the mean of the right half, which the map marks. The left half is zero, and so
        are the values imputed from it.

        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 1, bias=False)).eval()
        >>> right = (torch.arange(4) > 1).float().expand(1, 1, 4, 4)
        >>> model[1].weight.data = right.flatten(1) / 8
        >>> given = {"percentages": [50], "noise": 0.0, "activation": "none", "floors": ()}
        >>> for order in ("most", "least", "combined"):
        ...     print(round(road(model, right, right, order=order, **given).mean, 3))
        0.0
        1.0
        0.5
    """
    if order not in _ORDERS:
        raise ValueError(f"expected order to be one of {tuple(_ORDERS)}, got {order!r}")
    shares = [float(percentage) / 100 for percentage in percentages]
    if not shares or not all(0 < share < 1 for share in shares):
        raise ValueError(f"expected percentages within (0, 100), got {percentages!r}")
    if not 0 <= noise < math.inf:
        raise ValueError(f"expected noise as a number of at least 0, got {noise!r}")
    inputs = MetricInputs("road", model, images, explanation, **options)
    check_planar(images)
    n, pixels = len(images), images[0, 0].numel()
    counts = torch.tensor([round(share * pixels) for share in shares], device="cpu")
    if counts.amin() < 1 or counts.amax() == pixels:
        raise ValueError(
            f"expected percentages that remove at least one of {pixels} pixels and not all, got "
            f"{percentages!r}, which remove {counts.tolist()}"
        )
    counts = counts.to(images.device)
    added = noise * noise_of_each(torch.randn, images.shape[1:], inputs.seeds).to(images)

    def curve_of(maps: Tensor, first: str) -> Tensor:
        places = ranks(maps, inputs.seeds).flatten(0, 1)
        m, s = maps.shape[1], len(counts)
        rows = torch.arange(n * m * s, device=images.device)

        def make(part: slice) -> Tensor:
            image, place = rows[part] // (m * s), places[rows[part] // s]
            many = counts[rows[part] % s].view(-1, 1, 1)
            removed = place < many if first == "most" else place >= pixels - many
            imputed = impute(images[image], removed)
            return torch.where(removed.unsqueeze(1), imputed + added[image], imputed)

        return own_targets(inputs.scores(make, rows // (m * s)).unflatten(0, (n, m, s)))

    def values_of(maps: Tensor) -> tuple[Tensor, Tensor]:
        curves = [curve_of(maps, first) for first in _ORDERS[order]]
        curve = curves[0] if len(curves) == 1 else (curves[0] - curves[1]) / 2
        return curve.mean(dim=2), curve

    return inputs.result(
        values_of, better="lower" if order == "most" else "higher", steps=torch.tensor(shares)
    )
