"""Sanity checks: does a map depend on the network's parameters, and on the class?"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, Unpack

import torch
from torch import Tensor, nn

from ..explainers import Explainer, LayerAttribution, at_least_float32
from ..explanation import Explanation
from ..options import integer
from ..probe import Probe, Tail
from .metric_inputs import MetricInputs, MetricOptions, explained
from .metric_result import MetricResult
from .similarity import similarity_by_name

_T = TypeVar("_T")


def randomization(
    model: nn.Module,
    images: Tensor,
    explainer: Explainer,
    *,
    steps: int | None = 10,
    similarity: str = "spearman",
    **options: Unpack[MetricOptions],
) -> MetricResult:
    """Compare maps before and after the network's parameters are shuffled from the top down.

    The model parameter randomisation test of Adebayo et al., "Sanity Checks for Saliency Maps",
    NeurIPS 2018 (arXiv:1810.03292), section 3, cascading: what a network has learned goes layer by
    layer, and a map that stays the same never showed it. The values of each parameter, and of each
    floating-point buffer such as BatchNorm's statistics, are put in random order, which keeps their
    scale. Modules go in the order in which they ran, last first; parameters that the model itself
    holds, such as a class token, go with the last step. The targets stay those of the unchanged
    network.

    The model is left bit-identical: :func:`torch.func.functional_call` puts other tensors in the
    place of its own while the explainer runs. Do not use the model on another thread meanwhile.
    While all shuffled modules lie behind the explained layer, a class activation map of one layer
    costs the part of the network behind it only.

    Args:
        model: the explainer's, in evaluation mode.
        images: (N, C, *size), as the model takes them.
        explainer: what explains them; it runs once for each step.
        steps: into how many groups the modules are divided. None: one step for each module.
        similarity: ``"spearman"``, rank correlation of the raw maps; or ``"ssim"``, structural
            similarity of the heatmaps. See :mod:`camlens.faithfulness.similarity`.
        options: see :class:`MetricOptions`. The seed is that of the orders.

    Returns:
        The similarity after the last step, lower is better, in [-1, 1]; ``curve`` has it after each
        step and ``steps`` the share of the modules that are shuffled. NaN where a map is constant.
        A floor knows nothing of the network and stays the same: 1.

    Raises:
        TypeError: something is of the wrong type, such as a map in place of an explainer.
        ValueError: something does not fit, or the model has no parameters.
    """
    alike = similarity_by_name(similarity)
    explanation, again = explained(model, images, explainer, **options)
    inputs = MetricInputs("randomization", None, images, explanation, **options)
    asked, module = inputs.options, explainer.model
    probe = Probe(module, images, asked.inputs, asked.keywords, explanation.targets)
    order = _execution_order(probe)
    own = [name for name in order if _has_tensors(module.get_submodule(name))]
    groups = _groups(own, steps)
    from_layer = _from_layer(explainer, probe, explanation)
    behind = order[: order.index(explanation.layers[0])] if from_layer else []
    changed: dict[str, Tensor] = {}
    curve = []
    for number, group in enumerate(groups):
        for name in group:
            changed |= _shuffled(module, name, asked.seed)
        if number == len(groups) - 1:
            changed |= _shuffled(module, "", asked.seed)
        if from_layer is not None and number < len(groups) - 1 and set(group) <= set(behind):
            found = _with_tensors(module, changed, from_layer)
        else:
            from_layer = None  # the layer's own activations change from here on
            found = _with_tensors(module, changed, lambda: again(images))
        curve.append(alike(*(_compared(part, similarity) for part in (explanation, found))))
    values = torch.stack(curve, dim=2)
    done = torch.tensor([len(group) for group in groups]).cumsum(dim=0)
    same = torch.ones_like(values[..., -1])
    return MetricResult(
        metric="randomization",
        values=values[..., -1],
        better="lower",
        floor_values=dict.fromkeys(asked.floors, same),
        curve=values,
        steps=done / done[-1],
        seed=asked.seed,
    )


def random_logit(
    model: nn.Module | None,
    images: Tensor,
    explanation: Explanation | Tensor,
    *,
    similarity: str = "spearman",
    **options: Unpack[MetricOptions],
) -> MetricResult:
    """Compare the maps of different classes: a map that is the same for all explains none.

    The random logit test of Sixt, Granz and Landgraf, "When Explanations Lie", ICML 2020
    (arXiv:1912.09818), section 4, with all pairs of the explained targets in place of one random
    class. Maps of classes that share evidence may rightly be alike.

    Args:
        model: not run; may be None.
        images: (N, C, *size).
        explanation: of at least two targets of each image, such as
            ``explainer(images, targets="all")``, or maps (N, K, *size).
        similarity: see :func:`randomization`.
        options: see :class:`MetricOptions`.

    Returns:
        The mean similarity of each target's map to those of the others, lower is better, in
        [-1, 1]; ``curve`` (N, K, K) has all pairs. NaN where a map is constant. A floor knows
        nothing of the class: 1.

    Raises:
        TypeError: something is of the wrong type.
        ValueError: something does not fit, or there is a single target.
    """
    alike = similarity_by_name(similarity)
    inputs = MetricInputs("random_logit", None, images, explanation, **options)
    maps, count = inputs.maps, inputs.maps.shape[1]
    if isinstance(explanation, Explanation):
        maps = _compared(explanation, similarity).to(images.device)
    if count < 2:
        raise ValueError(
            "expected maps of at least two targets of each image, got one: explain several, such "
            'as explainer(images, targets="all") or camlens.targets.top(3)'
        )
    pairs = torch.stack(
        [alike(maps, maps[:, k : k + 1].expand_as(maps)) for k in range(count)], dim=2
    )
    others = ~torch.eye(count, dtype=torch.bool, device=pairs.device)
    values = pairs[:, others].view(len(pairs), count, count - 1).mean(dim=2)
    same = torch.ones_like(values)
    return MetricResult(
        metric="random_logit",
        values=values,
        better="lower",
        floor_values=dict.fromkeys(inputs.options.floors, same),
        curve=pairs,
        seed=inputs.options.seed,
    )


class _Holder(nn.Module):
    """Holds a model, so that :func:`torch.func.functional_call` can lend it other tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[], _T]) -> _T:
        return work()


def _with_tensors(model: nn.Module, tensors: Mapping[str, Tensor], work: Callable[[], _T]) -> _T:
    """Call ``work`` while a model has other parameters and buffers; then it has its own again."""
    lent = {f"model.{name}": tensor for name, tensor in tensors.items()}
    found: _T = torch.func.functional_call(_Holder(model), lent, (work,))
    return found


def _shuffled(model: nn.Module, name: str, seed: int) -> dict[str, Tensor]:
    """Return a module's own parameters and buffers with their values in random order.

    A parameter that several modules share is in the same order in all of them.
    """
    found = {}
    own = model.get_submodule(name)
    tensors = [*own.named_parameters(recurse=False), *own.named_buffers(recurse=False)]
    for attribute, tensor in tensors:
        if not tensor.is_floating_point():
            continue
        full = f"{name}.{attribute}" if name else attribute
        draw = torch.Generator().manual_seed(seed * 1_000_003 + _number(model, tensor))
        places = torch.randperm(tensor.numel(), generator=draw).to(tensor.device)
        found[full] = tensor.detach().flatten()[places].view(tensor.shape)
    return found


def _number(model: nn.Module, tensor: Tensor) -> int:
    """Return where a tensor first occurs among a model's tensors."""
    tensors = (*model.parameters(), *model.buffers())
    return next(i for i, other in enumerate(tensors) if other is tensor)


def _execution_order(probe: Probe) -> list[str]:
    """Return the modules but the model itself, the last to run first.

    Raises:
        ValueError: none has a parameter.
    """
    if not any(True for _ in probe.model.parameters()):
        raise ValueError("the model has no parameters to shuffle")
    names = [name for name, _ in probe.model.named_modules() if name]
    ran: dict[str, None] = {}

    def see(name: str, inputs: Any, output: Any) -> None:
        ran.pop(name, None)  # of several runs the last counts
        ran[name] = None

    with torch.no_grad():
        probe.execute(names, see)
    rest = [name for name in names if name not in ran]  # such as one whose weights alone are used
    return [*reversed(ran), *reversed(rest)]


def _has_tensors(module: nn.Module) -> bool:
    own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    return any(tensor.is_floating_point() for tensor in own)


def _groups(order: list[str], steps: int | None) -> list[list[str]]:
    """Divide modules into steps of as equal numbers as can be."""
    count = len(order) if steps is None else min(integer("steps", steps), len(order))
    bounds = [round(len(order) * i / count) for i in range(count + 1)]
    return [order[first:last] for first, last in itertools.pairwise(bounds)]


def _from_layer(
    explainer: Explainer, probe: Probe, explanation: Explanation
) -> Callable[[], Explanation] | None:
    """Return what explains the unchanged activations of a layer by the network behind it.

    None: the explainer is no class activation map of a single layer.
    """
    if not isinstance(explainer, LayerAttribution) or len(explanation.layers) != 1:
        return None
    if (explanation.targets < 0).any():
        return None  # a callable may look at more than the scores
    traced = explainer.trace(probe)
    tail = Tail(probe, traced.sites[0], traced)

    def again() -> Explanation:
        gradients = tail.mean_gradients(tail.activations.__getitem__, 1)
        maps = explainer.maps(at_least_float32(tail.activations), gradients)
        return dataclasses.replace(explanation, raw=maps.detach().float())

    return again


def _compared(explanation: Explanation, similarity: str) -> Tensor:
    """Return the maps that are compared: raw ones by rank, else the heatmaps."""
    return explanation.raw if similarity == "spearman" else explanation.heatmaps
