"""Randomization: does a map depend on the network's learned weights?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d

from ...explainers.base import Explainer
from ...explainers.layer_explainer import LayerAttribution, fused_maps
from ...explanation import Explanation
from ...model import check_images
from ...probe import Probe, Tail
from ...render.html_tables import html_table
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

#: Forward passes needed to measure which steps leave the layer unchanged.
_MEASURED = 2


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Randomization(MetricResult):
    """The result of :func:`randomization`.

    Attributes:
        step_names: the names of the modules that each step shuffles; ``""`` is the model itself,
            for tensors that belong to no module inside it.
        unrelated: by floor name, (N, K): the similarity of the unchanged map and that floor. A map
            that is unrelated to the unchanged one scores about this value.
    """

    step_names: tuple[tuple[str, ...], ...]
    unrelated: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)

    def _repr_html_(self) -> str | None:
        """Return a table for a notebook: the similarity after each step, and of unrelated maps."""
        if self.curve is None or self.steps is None:
            return super()._repr_html_()
        similarity = self.curve.nanmean(dim=(0, 1)).tolist()
        shuffled = [f"{share:.0%} of the modules shuffled" for share in self.steps.tolist()]
        unrelated = [
            [f"unrelated map: {name}", values.nanmean().item()]
            for name, values in self.unrelated.items()
        ]
        return html_table(
            "Similarity with the unchanged network's map: lower is better",
            ["compared with it", "similarity"],
            [*map(list, zip(shuffled, similarity, strict=True)), *unrelated],
            missing="undefined",
        )


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
    """Compare maps before and after shuffling the network's parameters, from the output down.

    The cascading model parameter randomisation test of Adebayo et al., "Sanity Checks for Saliency
    Maps", NeurIPS 2018 (arXiv:1810.03292), section 3: learned weights are destroyed layer by layer,
    and a map that stays the same does not depend on them. The authors draw new parameters from the
    initial distribution; camlens puts the values of each parameter in random order, which keeps
    their scale (a parameter with one value, or with equal values, does not change). BatchNorm
    channels are reordered with their statistics. Other buffers stay. Modules are shuffled in
    reverse order of execution; a module's own tensors, such as a class token, follow those of the
    modules inside it. The targets stay those of the unchanged network.

    The model is left bit-identical: ``torch.func.functional_call`` replaces its tensors only while
    the explainer runs. Do not use the model on another thread meanwhile.

    Args:
        model: the explainer's model, in evaluation mode.
        images: (N, C, *size), as the model takes them.
        explainer: explains the images.
        steps: number of groups that the modules are divided into. None: one step for each module.
        similarity: ``"spearman"``, rank correlation of the raw maps; or ``"ssim"``, structural
            similarity of the heatmaps. See :func:`spearman` and :func:`ssim`.
        signed: whether to compare the explanation's signed ``gradients``, summed over the channels,
            by rank, instead of the maps, which have no sign.
        options: see :class:`MetricOptions`. The seed determines the shuffled orders.

    Returns:
        The similarity after the last step, lower is better, in [-1, 1]; ``curve`` contains it after
        each step and ``steps`` the share of shuffled modules. NaN if a map is constant, for example
        without evidence. A floor does not depend on the network, so its value is 1.

        The cost is one forward pass, and one run of the explainer before and after each step. For a
        class activation map of one layer, a step that only shuffles parameters used after the layer
        reruns only that part of the network. Measuring this takes two forward passes, so camlens
        does it if there are more than two such steps.

    Raises:
        TypeError: an argument has the wrong type, such as a map instead of an explainer.
        ValueError: the arguments do not match, the model has no parameters, or the shuffled network
            cannot be explained, for example because its scores overflow.

    Example:
        >>> import camlens
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)).eval()
        >>> found = randomization(model, torch.rand(2, 3, 8, 8), camlens.Saliency(model))
        >>> found.step_names, found.curve.shape
        ((('2',), ('0',)), torch.Size([2, 1, 2]))
    """
    measure = similarity_by_name(similarity)
    if signed and similarity != "spearman":
        raise ValueError(f'expected similarity="spearman" with signed=True, got {similarity!r}')

    def compared(explanation: Explanation) -> Tensor:
        if signed:
            return _signed(explanation)
        return (explanation.raw if similarity == "spearman" else explanation.heatmaps).detach()

    with torch.inference_mode(False):  # inference tensors cannot replace parameters
        images = check_images(images).detach()
        images = images.clone() if images.is_inference() else images
        explanation, again = explained(model, images, explainer, **options)
        inputs = MetricInputs("randomization", None, images, explanation, **options)
        checked, before = inputs.options, compared(explanation)
        probe = Probe(
            explainer.model, images, checked.inputs, checked.keywords, explanation.targets
        )
        cascade = Cascade(probe)
        groups = cascade.groups(steps)
        steps_after, from_layer = _from_layer(explainer, probe, explanation, cascade, groups)
        changed: dict[str, Tensor] = {}
        curve = []
        for number, group in enumerate(groups):
            changed |= cascade.shuffled(group, checked.seed)
            work = from_layer if number < steps_after else (lambda: again(images))
            try:
                found = cascade.run(changed, work)
            except ValueError as error:
                raise ValueError(
                    f"the network with its modules from {groups[0][0]!r} to {group[-1]!r} shuffled "
                    f"(step {number + 1} of {len(groups)}) cannot be explained: {error}"
                ) from error
            curve.append(measure(before, compared(found)))
        unrelated = {
            name: measure(before, _on_grid(FLOORS[name](images, inputs.seeds), before))
            for name in checked.floors
        }
    values = torch.stack(curve, dim=2)
    done = torch.tensor([len(group) for group in groups]).cumsum(dim=0)
    return Randomization(
        metric="randomization",
        values=values[..., -1],
        better="lower",
        floor_values=dict.fromkeys(checked.floors, torch.ones_like(values[..., -1])),
        curve=values,
        steps=done / done[-1],
        seed=checked.seed,
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
    """Return how many initial steps leave the layer unchanged, and a faster explainer for those.

    The number is 0 if the explainer is not a class activation map of a single layer, if the rest of
    the model cannot run alone, or if that would save nothing.
    """
    nothing = 0, lambda: explanation
    if not isinstance(explainer, LayerAttribution) or len(explanation.layers) != 1:
        return nothing
    if (explanation.targets < 0).any():
        return nothing  # a callable may use more than the scores
    later = cascade.after(explanation.layers[0])
    count = next((i for i, group in enumerate(groups) if not later.issuperset(group)), len(groups))
    if count <= _MEASURED:
        return nothing
    traced = explainer.trace(probe)
    site = traced.sites[0]
    # Code may use a module's parameters without calling it: check that the layer stays the same.
    shuffled = cascade.shuffled([name for group in groups[:count] for name in group], 0)
    after = cascade.run(shuffled, lambda: probe.run(sites=[site], start=None)).captured[site.name]
    if not torch.allclose(after, traced.captured[site.name].detach(), rtol=1e-4):
        return nothing
    try:
        tail = Tail(probe, site, traced)
    except ValueError:  # for example several rows for each image; the whole explainer still works
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
            f"expected an explainer with signed gradients, got {explanation.method}, which has "
            "none: omit signed=True, or use an explainer such as camlens.Saliency"
        )
    return explanation.gradients.detach().sum(dim=2)


def _on_grid(floor: Tensor, maps: Tensor) -> Tensor:
    """Average a floor, (N, 1, *size), over the cells of other maps' grid."""
    cells: Tensor = _POOLS[floor.ndim - 2](floor, list(maps.shape[2:]))
    return cells.to(maps.device).expand_as(maps)
