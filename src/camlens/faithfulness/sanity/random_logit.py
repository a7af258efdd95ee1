"""Random logit: does a map depend on the class?"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from ...explanation import Explanation
from ..metric.inputs import MetricInputs
from ..metric.options import MetricOptions
from ..metric.result import MetricResult
from .similarity import of_pairs, similarity_by_name


def random_logit(
    model: nn.Module | None,
    images: Tensor,
    explanation: Explanation | Tensor,
    *,
    similarity: str = "spearman",
    pairs: str = "mean",
    **options: Unpack[MetricOptions],
) -> MetricResult:
    """Compare the maps of different classes, which should differ if they depend on the class.

    The random logit test of Sixt, Granz and Landgraf, "When Explanations Lie", ICML 2020
    (arXiv:1912.09818), with all pairs of the explained targets instead of one random class. Maps of
    classes that share evidence may rightly be similar. To remove the evidence that all classes
    share, explain score differences:
    ``targets=lambda out: out - out.mean(dim=1, keepdim=True)``.

    Args:
        model: not run; may be None.
        images: (N, C, *size).
        explanation: an explanation of at least two targets of each image, such as
            ``explainer(images, targets="all")``, or maps (N, K, *size), which may be signed.
        similarity: see :func:`randomization`.
        pairs: ``"mean"`` or ``"max"`` of a map's similarities to the others.
        options: see :class:`MetricOptions`.

    Returns:
        The similarity of each target's map to the other targets' maps, lower is better, in
        [-1, 1]; ``curve`` (N, K, K) contains all pairs. A pair is NaN if one of its maps is
        constant, for example without evidence, or if both are of the same class. Such pairs are
        left out, and a value is NaN if no pair remains. A floor has the value 1, as it is
        the same for all classes. No forward pass.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the arguments do not match, or there is only one target.

    Example:
        >>> images, maps = torch.rand(1, 3, 1, 3), torch.tensor([[[[1.0, 2, 3]], [[3.0, 2, 1]]]])
        >>> random_logit(None, images, maps).values.tolist()
        [[-1.0, -1.0]]
    """
    similarity_by_name(similarity)
    if pairs not in ("mean", "max"):
        raise ValueError(f'expected pairs="mean" or pairs="max", got {pairs!r}')
    inputs = MetricInputs("random_logit", None, images, explanation, **options)
    maps, count = inputs.maps, inputs.maps.shape[1]
    if count < 2:
        raise ValueError(
            "expected maps of at least two targets of each image, got one: explain several, for "
            'example by explainer(images, targets="all") or targets=camlens.targets.top(3)'
        )
    same = torch.eye(count, dtype=torch.bool, device=maps.device).expand(len(maps), -1, -1)
    if isinstance(explanation, Explanation):
        if similarity == "spearman":
            maps = explanation.raw.detach().to(images.device)
        classes = explanation.targets.to(maps.device)
        same = same | (classes.unsqueeze(1) == classes.unsqueeze(2)) & (classes >= 0).unsqueeze(1)
    alike = of_pairs(maps, similarity)
    others = alike.masked_fill(same, torch.nan)
    values = others.nanmean(dim=2)
    if pairs == "max":
        values = others.nan_to_num(nan=-torch.inf).amax(dim=2).where(values.isfinite(), torch.nan)
    return MetricResult(
        metric="random_logit",
        values=values,
        better="lower",
        floor_values=dict.fromkeys(inputs.options.floors, torch.ones_like(values)),
        curve=others.where(~torch.eye(count, dtype=torch.bool, device=maps.device), alike),
        seed=inputs.options.seed,
    )
