"""Scores and ablations of known numbers, without a model."""

import torch

from camlens.faithfulness import RegionAblation
from camlens.regions.scores import Scores


def scores_of(density, *, names=None, targets=None, resolvable=None, evidence=None, **facts):
    """Scores of given densities, (N, K, R), of regions that are a tenth of the image each."""
    density = torch.as_tensor(density, dtype=torch.float32)
    n, k, r = density.shape
    resolvable = torch.ones(n, k, r, dtype=torch.bool) if resolvable is None else resolvable
    evidence = torch.ones(n, k, dtype=torch.bool) if evidence is None else evidence
    density = density.where(resolvable & evidence.unsqueeze(-1), torch.nan)
    facts = {"grid": (12, 10), "method": "GradCAM", "layers": ("features.34",), **facts}
    facts = {"resolution": (4.0, 4.8), "resolution_from": "grid", **facts}
    return Scores(
        names=names or tuple(f"region{i}" for i in range(r)),
        share=density / 10,
        density=density,
        pointing_game=(density > 1).float().where(~density.isnan(), torch.nan),
        iou=density / 20,
        density_rank=(density.unsqueeze(-1) < density.unsqueeze(-2)).sum(-1) + 1.0,
        resolvable=resolvable,
        evidence=evidence,
        area=torch.full((n, r), 0.1),
        targets=torch.zeros(n, k, dtype=torch.long) if targets is None else targets,
        scores=torch.arange(n * k).view(n, k).float(),
        **facts,
    )


def ablation_of(
    drop, baseline, standard_error=0.1, exceeds=0.5, *, names=None, targets=None, infill="blur"
):
    """An ablation with given drops, (N, K, R); those of the probability are a tenth."""
    drop = torch.as_tensor(drop, dtype=torch.float32)
    baseline = torch.as_tensor(baseline, dtype=torch.float32).expand_as(drop)
    error = torch.full_like(drop, standard_error)
    n, k, r = drop.shape
    return RegionAblation(
        names=names or tuple(f"region{i}" for i in range(r)),
        drop=drop,
        baseline=baseline,
        standard_error=error,
        exceeds=torch.as_tensor(exceeds, dtype=torch.float32).expand_as(drop),
        probability_drop=drop / 10,
        probability_baseline=baseline / 10,
        probability_standard_error=error / 10,
        infill=infill,
        targets=torch.zeros(n, k, dtype=torch.long) if targets is None else targets,
        placements=8,
    )


def noise(*shape, seed=0):
    """Numbers from 0 to 2 whose mean is about 1."""
    return 2 * torch.rand(shape, generator=torch.Generator().manual_seed(seed))
