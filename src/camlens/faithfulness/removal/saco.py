"""SaCo: groups of pixels with more heat should lower the score more when they are removed."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from ...baselines import Baseline, baseline_images, check_baseline
from ...explanation import Explanation
from ...options import integer
from ..metric.inputs import MetricInputs, own_targets
from ..metric.options import MetricOptions
from ..metric.pixel_order import ranks
from ..metric.result import MetricResult
from .subsets import ROUNDING


def saco(
    model: nn.Module,
    images: Tensor,
    explanation: Explanation | Tensor,
    *,
    groups: int = 10,
    baseline: Baseline = 0.0,
    **options: Unpack[MetricOptions],
) -> MetricResult:
    """Check whether removing pixels with more heat lowers the score more.

    The salience-guided faithfulness coefficient of Wu et al., "On the Faithfulness of Vision
    Transformer Explanations", CVPR 2024 (arXiv:2404.01415), section 3: pixels are sorted by their
    values into groups of equal size. Each pair of groups is weighted by the difference of their
    heat. It counts for the map if removing the group with more heat lowers the score more, and
    otherwise against it. A pair with equal drops, up to rounding, counts as zero; in the paper it
    counts for the map, so that a score that never changes gives the best value.

    Args:
        model: in evaluation mode; it is left unchanged.
        images: (N, C, *size), as the model takes them.
        explanation: an explanation of the images, or maps (N, K, *size) from any source.
        groups: number of groups, at least 2. Each takes a forward pass for each map.
        baseline: replacement for removed pixels, see :func:`deletion`.
        options: see :class:`MetricOptions`.

    Returns:
        Values in [-1, 1], higher is better; NaN if all groups have the same heat, as in a constant
        map, or the same drop.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the arguments do not match, see :class:`MetricInputs`.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 1, bias=False)).eval()
        >>> model[1].weight.data = torch.tensor([[3.0, 1.0]])
        >>> images, maps = torch.ones(1, 1, 1, 2), torch.tensor([[[[0.9, 0.1]]]])
        >>> saco(model, images, maps, groups=2, activation="none", floors=()).mean
        1.0
    """
    inputs = MetricInputs("saco", model, images, explanation, **options)
    start = baseline_images(check_baseline(baseline), images)
    n, pixels = len(images), images[0, 0].numel()
    if integer("groups", groups, least=2) > pixels:
        raise ValueError(f"expected at most {pixels} groups, one for each pixel, got {groups}")

    def values_of(maps: Tensor) -> Tensor:
        group = ranks(maps, inputs.seeds) * groups // pixels
        m = maps.shape[1]
        heat = maps.new_zeros(n, m, groups).double()
        heat.scatter_reduce_(
            2, group.flatten(2), maps.flatten(2).double(), "mean", include_self=False
        )
        rows = torch.arange(n * m * groups, device=images.device)
        flat = group.flatten(0, 1)

        def make(part: slice) -> Tensor:
            image = rows[part] // (m * groups)
            number = (rows[part] % groups).view(-1, *[1] * (images.ndim - 2))
            gone = (flat[rows[part] // groups] == number).unsqueeze(1)
            return start[image].where(gone, images[image])

        without = inputs.scores(make, rows // (m * groups)).unflatten(0, (n, m, groups))
        drops = inputs.unchanged.unsqueeze(2) - own_targets(without)  # (N, K, groups)
        more = heat.unsqueeze(3) - heat.unsqueeze(2)  # heat of group i minus heat of group j
        costs = drops.unsqueeze(3) - drops.unsqueeze(2)
        rounding = ROUNDING * inputs.unchanged.abs().view(n, -1, 1, 1)
        costs = costs.sign().where(costs.abs() > rounding, 0)
        later = torch.ones(groups, groups, dtype=torch.bool, device=heat.device).triu(1)
        weight = more.abs()[..., later].sum(dim=2)
        signed = (more * costs)[..., later].sum(dim=2)
        differs = weight > 1e-9 * heat.abs().sum(dim=2)
        return (signed / weight).where(differs & costs.flatten(2).any(dim=2), torch.nan)

    return inputs.result(values_of, better="higher")
