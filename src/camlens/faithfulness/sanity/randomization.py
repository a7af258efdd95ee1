"""Randomization: does a map depend on what the network has learned?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d

from ...explainers import Explainer, LayerAttribution, fused_maps
from ...explanation import Explanation
from ...model import check_images
from ...probe import Probe, Tail
from ..metric.floors import FLOORS
from ..metric.inputs import MetricInputs, explained
from ..metric.options import MetricOptions
from ..metric.result import MetricResult
from .cascade import Cascade
from .similarity import similarity_by_name

_POOLS: dict[int, Callable[..., Tensor]] = {
    1: adaptive_avg_pool1d,
    2: adaptive_avg_pool2d,
    3: adaptive_avg_pool3d,
}

#: Forward passes that it takes to measure what depends on the part behind a layer alone.
_MEASURED = 2


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Randomization(MetricResult):
    """What :func:`randomization` returns.

    Attributes:
        step_names: of each step, the names of the modules that it shuffles; ``""`` is the model
            itself, for what no module within it holds.
        unrelated: by the name of a floor, (N, K): how alike the unchanged map and that floor are.
            A map that has nothing left of the unchanged one scores about so much.
    """

    step_names: tuple[tuple[str, ...], ...]
    unrelated: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)


def randomization(
    model: nn.Module,
    images: Tensor,
    explainer: Explainer,
    *,
    steps: int | None = 10,
    similarity: str = "spearman",
    signed: bool = False,
    **options: Unpack[MetricOptions],
) -> Randomization:
    """Compare maps before and after the network's parameters are shuffled from the top down.

    The model parameter randomisation test of Adebayo et al., "Sanity Checks for Saliency Maps",
    NeurIPS 2018 (arXiv:1810.03292), section 3, cascading: what a network has learned goes layer by
    layer, and a map that stays the same never showed it. The authors draw new parameters as before
    training; here the values of each parameter are put in random order, which keeps their scale (a
    parameter of one value, or of equal ones, stays). In a BatchNorm the channels are reordered,
    with their statistics. Other buffers stay. Modules go in the order in which they ran, last
    first; what a module holds itself, such as a class token, goes after what is inside it. The
    targets stay those of the unchanged network.

    The model is left bit-identical: ``torch.func.functional_call`` puts other tensors in the
    place of its own while the explainer runs. Do not use the model on another thread meanwhile.

    Args:
        model: the explainer's, in evaluation mode.
        images: (N, C, *size), as the model takes them.
        explainer: what explains them.
        steps: into how many groups the modules are divided. None: one step for each module.
        similarity: ``"spearman"``, rank correlation of the raw maps; or ``"ssim"``, structural
            similarity of the heatmaps. See :func:`spearman` and :func:`ssim`.
        signed: whether the explanation's signed ``gradients``, summed over the channels, are
            compared by rank in place of the maps, which have no sign.
        options: see :class:`MetricOptions`. The seed is that of the orders.

    Returns:
        The similarity after the last step, lower is better, in [-1, 1]; ``curve`` has it after each
        step and ``steps`` the share of the modules that are shuffled. NaN where a map is constant,
        such as one without evidence. A floor knows nothing of the network and stays the same: 1.

        It costs a forward pass, and the explainer's price once and for each step. For a class
        activation map of one layer, steps whose parameters are used behind the layer only cost the
        part of the network behind it. To measure that takes two forward passes, so it is done where
        there are more than two such steps.

    Raises:
        TypeError: something is of the wrong type, such as a map in place of an explainer.
        ValueError: something does not fit, the model has no parameters, or its shuffled copy
            cannot be explained, such as by scores that overflow.

    Example:
        >>> import camlens
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)).eval()
        >>> found = randomization(model, torch.rand(2, 3, 8, 8), camlens.Saliency(model))
        >>> found.step_names, found.curve.shape
        ((('2',), ('0',)), torch.Size([2, 1, 2]))
    """
    alike = similarity_by_name(similarity)
    if signed and similarity != "spearman":
        raise ValueError(f'expected similarity="spearman" of signed values, got {similarity!r}')

    def compared(explanation: Explanation) -> Tensor:
        if signed:
            return _signed(explanation)
        return (explanation.raw if similarity == "spearman" else explanation.heatmaps).detach()

    with torch.inference_mode(False):  # its tensors could not stand in for parameters
        images = check_images(images).detach()
        images = images.clone() if images.is_inference() else images
        explanation, again = explained(model, images, explainer, **options)
        inputs = MetricInputs("randomization", None, images, explanation, **options)
        asked, before = inputs.options, compared(explanation)
        probe = Probe(explainer.model, images, asked.inputs, asked.keywords, explanation.targets)
        cascade = Cascade(probe)
        groups = cascade.groups(steps)
        behind, from_layer = _from_layer(explainer, probe, explanation, cascade, groups)
        changed: dict[str, Tensor] = {}
        curve = []
        for number, group in enumerate(groups):
            changed |= cascade.shuffled(group, asked.seed)
            work = from_layer if number < behind else (lambda: again(images))
            try:
                found = cascade.run(changed, work)
            except ValueError as error:
                raise ValueError(
                    f"the network with its modules from {groups[0][0]!r} to {group[-1]!r} shuffled "
                    f"(step {number + 1} of {len(groups)}) cannot be explained: {error}"
                ) from error
            curve.append(alike(before, compared(found)))
        unrelated = {
            name: alike(before, _on_grid(FLOORS[name](images, inputs.seeds), before))
            for name in asked.floors
        }
    values = torch.stack(curve, dim=2)
    done = torch.tensor([len(group) for group in groups]).cumsum(dim=0)
    return Randomization(
        metric="randomization",
        values=values[..., -1],
        better="lower",
        floor_values=dict.fromkeys(asked.floors, torch.ones_like(values[..., -1])),
        curve=values,
        steps=done / done[-1],
        seed=asked.seed,
        step_names=tuple(tuple(group) for group in groups),
        unrelated=unrelated,
    )


def _from_layer(
    explainer: Explainer,
    probe: Probe,
    explanation: Explanation,
    cascade: Cascade,
    groups: Sequence[Sequence[str]],
) -> tuple[int, Callable[[], Explanation]]:
    """Return how many of the first steps leave the layer as it is, and what explains those.

    None where the explainer is no class activation map of a single layer, where the rest of the
    model cannot be run alone, or where that would save nothing.
    """
    nothing = 0, lambda: explanation
    if not isinstance(explainer, LayerAttribution) or len(explanation.layers) != 1:
        return nothing
    if (explanation.targets < 0).any():
        return nothing  # a callable may look at more than the scores
    behind = cascade.behind(explanation.layers[0])
    count = next((i for i, group in enumerate(groups) if not behind.issuperset(group)), len(groups))
    if count <= _MEASURED:
        return nothing
    traced = explainer.trace(probe)
    site = traced.sites[0]
    # Code may use a module's parameters without calling it: look whether the layer stays the same.
    shuffled = cascade.shuffled([name for group in groups[:count] for name in group], 0)
    after = cascade.run(shuffled, lambda: probe.run(sites=[site], start=None)).captured[site.name]
    if not torch.allclose(after, traced.captured[site.name].detach(), rtol=1e-4):
        return nothing
    try:
        tail = Tail(probe, site, traced)
    except ValueError:  # such as several rows for each image; the whole explainer can
        return nothing
    every = torch.arange(len(probe.images), device=tail.activations.device)

    def again() -> Explanation:
        passes = tail.passes(tail.activations.__getitem__, every, start="sites")
        maps = [fused_maps(part, explainer.maps, fuse=explainer.fuse) for part in passes]
        return dataclasses.replace(explanation, raw=torch.cat(maps).float())

    return count, again


def _signed(explanation: Explanation) -> Tensor:
    if explanation.gradients is None:
        raise ValueError(
            f"expected an explainer with signed gradients, got {explanation.method}, whose maps "
            "have none: leave signed=True out, or take one such as camlens.Saliency"
        )
    return explanation.gradients.detach().sum(dim=2)


def _on_grid(floor: Tensor, maps: Tensor) -> Tensor:
    """Return a floor, (N, 1, *size), as maps on the grid of others: the mean of each cell."""
    cells: Tensor = _POOLS[floor.ndim - 2](floor, list(maps.shape[2:]))
    return cells.to(maps.device).expand_as(maps)
