"""ROAD: remove pixels and debias, by an imputation that leaves no mask to be seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack

import torch
from torch import Tensor, nn

from ..explanation import Explanation
from .imputation import impute
from .metric_inputs import MetricInputs, MetricOptions, own_targets
from .metric_result import MetricResult
from .pixel_order import ranks

#: What is removed first: the pixels with the least, or the most heat.
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
    """Follow the score as shares of an image's pixels are removed and imputed from the others.

    Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML 2022
    (arXiv:2202.00449): removed pixels become the noisy means of their neighbours
    (:func:`camlens.faithfulness.imputation.impute`), so that their mask cannot be read off the
    image. The paper reports the accuracy over a data set; here it is each image's own score, whose
    mean is a curve of the same kind. Exactly the stated share of pixels is removed, ties at random.

    ROAD, like ROAR, favours blurry maps, since holes without details are imputed worst: look at the
    floor ``"blurred_random"``.

    Args:
        model: in evaluation mode; it is left unchanged.
        images: (N, C, H, W), as the model takes them.
        explanation: an explanation of them, or maps (N, K, H, W) of any origin.
        order: ``"most"`` removes the pixels with the largest values first (MoRF; lower is better),
            ``"least"`` those with the smallest (LeRF; higher is better). ``"combined"`` is half of
            the difference, LeRF less MoRF, an addition of the library grad-cam's.
        percentages: of the pixels to remove, in (0, 100).
        noise: standard deviation of what is added to imputed values, in the images' own unit.
        options: see :class:`MetricOptions`.

    Returns:
        The mean over the percentages, and the ``curve`` over them. As many forward passes for each
        map as there are percentages, twice as many if combined.

    Raises:
        TypeError: something is of the wrong type.
        ValueError: something does not fit, see :class:`MetricInputs`, or images are not 2-D.
    """
    if order not in _ORDERS:
        raise ValueError(f"expected an order out of {tuple(_ORDERS)}, got {order!r}")
    shares = [float(percentage) / 100 for percentage in percentages]
    if not shares or not all(0 < share < 1 for share in shares):
        raise ValueError(f"expected percentages within (0, 100), got {tuple(percentages)}")
    if not noise >= 0:
        raise ValueError(f"expected noise of at least 0, got {noise!r}")
    inputs = MetricInputs("road", model, images, explanation, **options)
    if images.ndim != 4:
        impute(images, images.new_zeros(0))  # says what it needs
    n, pixels = len(images), images[0, 0].numel()
    counts = torch.tensor([round(share * pixels) for share in shares], device=images.device)
    added = noise * _noise(images, inputs.seeds)

    def curve_of(maps: Tensor, first: str) -> Tensor:
        places = ranks(maps, inputs.seeds).flatten(0, 1)
        m, s = maps.shape[1], len(counts)
        rows = torch.arange(n * m * s, device=images.device)

        def make(part: slice) -> Tensor:
            own, place = rows[part] // (m * s), places[rows[part] // s]
            many = counts[rows[part] % s].view(-1, 1, 1)
            removed = place < many if first == "most" else place >= pixels - many
            imputed = impute(images[own], removed)
            return torch.where(removed.unsqueeze(1), imputed + added[own], imputed)

        return own_targets(inputs.scores(make, rows // (m * s)).unflatten(0, (n, m, s)))

    def values_of(maps: Tensor) -> tuple[Tensor, Tensor]:
        curves = [curve_of(maps, first) for first in _ORDERS[order]]
        curve = curves[0] if len(curves) == 1 else (curves[0] - curves[1]) / 2
        return curve.mean(dim=2), curve

    return inputs.result(
        values_of, better="lower" if order == "most" else "higher", steps=torch.tensor(shares)
    )


def _noise(images: Tensor, seeds: Tensor) -> Tensor:
    draws = [
        torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(seed))
        for seed in seeds.tolist()
    ]
    return torch.stack(draws).to(images)
