"""Finds the layers that lie on all paths from the images to the score, in one traced pass."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from ..probe.derivatives import remedy
from .graph import Paths, mixes, successors
from .trace import ModuleCall, Trace


class Evidence:
    """The paths of the evidence from the images to the scores in a traced pass.

    Args:
        trace: the pass.

    Raises:
        LookupError: no gradient leads from the scores to the images.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._roots = [node for node in (trace.scores.grad_fn,) if node is not None]
        self._paths = Paths(self._roots, trace.images, successors)
        nodes = [call.node for call in trace.calls if call.node is not None]
        self._from_images = Paths(nodes, trace.images, successors)
        if not self._paths.nodes:
            raise LookupError(self._cut())
        self._all_through = frozenset(self._paths.bottlenecks)

    def from_images(self, call: ModuleCall) -> bool:
        """Return whether a layer's output depends on the images."""
        return call.node in self._from_images

    def partly_through(self, call: ModuleCall) -> bool:
        """Return whether some evidence passes through a layer's output, but not all."""
        return call.node in self._paths and call.node not in self._all_through

    def all_through(self, call: ModuleCall) -> bool:
        """Return whether the scores would not depend on the images without a layer's output."""
        return call.node in self._all_through

    def detour(self, call: ModuleCall) -> str:
        """Return the last layer on a path that bypasses a layer; "" if no module is on one."""
        detour = set(self._paths.beside(call.node)) - self._all_through if call.node else set()
        return next((s.name for s in reversed(self.trace.calls) if s.node in detour), "")

    def cells_reached(self, call: ModuleCall, layout: Callable[[Tensor], Tensor]) -> int:
        """Return the number of a map's cells with a gradient, in the image with most of them.

        All evidence must pass through the layer. The gradient is that of all K scores together. If
        it is zero everywhere, as before a saturated sigmoid or an untrained head of zeros, it is
        replaced by that of the nearest result on all paths with a gradient, since the choice of the
        layer must not depend on such values.

        Args:
            call: the layer.
            layout: turns its output into (N, C, *grid).
        """
        gradient = self._arriving.get(call.node) if call.node is not None else None
        return 0 if gradient is None else _cells(layout(gradient))

    def cells_reached_by_top(self, call: ModuleCall, layout: Callable[[Tensor], Tensor]) -> int:
        """Return the largest number of cells that the gradient of an image's top score reaches."""
        scores = self.trace.scores
        weights = torch.zeros_like(scores).scatter_(1, scores.detach().argmax(1, keepdim=True), 1)
        nodes = [call.node] if call.node is not None else []
        gradients = _gradients(scores, weights, nodes).values()
        return max((_cells(layout(gradient)) for gradient in gradients), default=0)

    def learned(self, call: ModuleCall) -> bool:
        """Return whether a convolution, product or parameter lies between images and layer."""
        if call.node is None:
            return False
        nodes = set(Paths([call.node], self.trace.images, successors).nodes)
        return any(mixes(node) for node in nodes) or any(
            s.node in nodes and next(s.module.parameters(), None) is not None
            for s in self.trace.calls
        )

    def shows_output(self, call: ModuleCall, shape: tuple[int, ...]) -> bool:
        """Return whether a layer's map only repeats the model's output.

        This applies to outputs that are maps themselves, with scores for each place. A map on the
        output's grid repeats it, and so do its scores before they are resized.

        Args:
            call: the layer.
            shape: (C, *grid) of its map.
        """
        for output, result in self._output_maps:
            if shape[1:] in (tuple(output.shape[2:]), tuple(output.shape[1:-1])):
                return True
            if call.node is not None and shape[0] in (output.shape[1], output.shape[-1]):
                between = Paths([result], call.node, successors).nodes
                if between and not any(mixes(node) for node in between):
                    return True
        return False

    @functools.cached_property
    def _output_maps(self) -> list[tuple[Tensor, Node]]:
        """The maps among the outputs from which the scores are computed without weights."""
        n, ndim = len(self.trace.scores), len(self.trace.size) + 2
        maps: list[tuple[Tensor, Node]] = []
        for tensor in tensors_in(self.trace.outputs):
            node = tensor.grad_fn
            if node is None or node not in self._paths:
                continue
            if tensor.ndim != ndim or len(tensor) != n or max(tensor.shape[2:]) == 1:
                continue
            between = Paths(self._roots, node, successors).nodes
            if not any(mixes(other) for other in between if other is not node):
                maps.append((tensor, node))
        return maps

    @functools.cached_property
    def _arriving(self) -> dict[Node, Tensor]:
        """By node, the gradient of the output of each layer through which all evidence passes."""
        calls = (s for s in self.trace.calls if self.all_through(s) and s.has_cells)
        nodes = [node for node in dict.fromkeys(s.node for s in calls) if node is not None]
        scores = self.trace.scores
        start: Tensor | GradientEdge = scores
        weights = _direction(scores.shape, scores.dtype, scores.device)
        gradients = _gradients(start, weights, nodes)
        chain = self._single_results
        while nodes and not any(bool(gradient.any()) for gradient in gradients.values()):
            # Start again at the first result whose gradient is zero.
            between = _gradients(start, weights, chain)
            dead = [i for i, n in enumerate(chain) if n not in between or not between[n].any()]
            if not dead:
                break
            node, chain = chain[dead[0]], chain[dead[0] + 1 :]
            start, weights = GradientEdge(node, 0), _direction_of(node)
            rest = set(chain)
            gradients = _gradients(start, weights, [n for n in nodes if n in rest])
            if node in nodes:
                # The operation that uses the map directly, at every cell, passes no gradient.
                gradients[node] = weights
        return gradients

    @functools.cached_property
    def _single_results(self) -> list[Node]:
        """The nodes that lie on every path and have one result, up to the images' copy."""
        nodes = [node for node in self._paths.bottlenecks if node is not self.trace.images]
        return [n for n in nodes if len(n._input_metadata) == 1]

    def _cut(self) -> str:
        """Return the error message if no gradient leads from the scores to the images."""
        where = "the scores have none" if not self._roots else "it ends before the images"
        reached = [call.name for call in self.trace.calls if self.from_images(call)]
        if reached:
            where += f"; the last layer whose output still depends on the images is {reached[-1]!r}"
        return (
            f"no gradient leads from the scores to the images ({where}): expected scores computed "
            "from the images by differentiable operations, without detach(), rounding, argmax or "
            "torch.no_grad() on the way"
        )


def tensors_in(outputs: Any) -> Iterator[Tensor]:
    """Yield the tensors inside nested sequences, mappings, dataclasses and plain objects."""
    seen: set[int] = set()
    stack = [outputs]
    while stack:
        part = stack.pop()
        if isinstance(part, Tensor):
            yield part
        elif not isinstance(part, (str, bytes, type)) and id(part) not in seen:
            seen.add(id(part))
            stack.extend(_parts(part))


def all_outputs(outputs: Any, n: int) -> Tensor:
    """Return all outputs as (n, K) scores, if none are selected; each row holds all of them.

    Raises:
        LookupError: no output has a gradient.
    """
    carrying = [tensor for tensor in tensors_in(outputs) if tensor.requires_grad]
    if not carrying:
        raise LookupError(
            f"no output of the model, a {type(outputs).__name__}, has a gradient: expected a "
            "floating-point tensor, computed without detach() or torch.no_grad()"
        )
    values = torch.cat([tensor.reshape(1, -1).float() for tensor in carrying], dim=1)
    return values.expand(n, -1)


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, (tuple, list, set, frozenset)):
        yield from value
    else:
        slots = {name for kind in type(value).__mro__ for name in _slots(kind)}
        yield from getattr(value, "__dict__", {}).values()
        yield from (getattr(value, name) for name in slots if hasattr(value, name))


def _slots(kind: type) -> tuple[str, ...]:
    slots = kind.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _cells(gradient: Tensor) -> int:
    """Return the number of cells of (N, C, *grid) that are not zero, in the image with most."""
    return int((gradient != 0).any(dim=1).flatten(1).sum(dim=1).max())


def _direction(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return normal random weights, as a plain sum of probabilities would be constant."""
    generator = torch.Generator("cpu").manual_seed(0)
    weights = torch.randn(shape, generator=generator, device="cpu", dtype=torch.float32)
    return weights.to(device=device, dtype=dtype)


def _direction_of(node: Node) -> Tensor:
    """Return random weights for the only result of a recorded operation."""
    (result,) = node._input_metadata
    return _direction(tuple(map(int, result.shape)), result.dtype, result.device)


def _gradients(
    start: Tensor | GradientEdge, weights: Tensor, nodes: Sequence[Node]
) -> dict[Node, Tensor]:
    """Return the gradients of a weighted sum with respect to results of recorded operations."""
    if not nodes:
        return {}
    try:
        gradients = torch.autograd.grad(
            (start,),  # type: ignore[arg-type] # either kind is taken
            [GradientEdge(node, 0) for node in nodes],
            grad_outputs=(weights,),
            retain_graph=True,
            allow_unused=True,
        )
    except RuntimeError as error:
        if "checkpoint" not in str(error):
            if text := remedy(error):
                raise ValueError(text) from error
            raise
        # A reentrant checkpoint blocks such gradients: keep those of the nodes after it.
        alone = [_gradients(start, weights, [node]) for node in nodes] if len(nodes) > 1 else []
        return {node: gradient for part in alone for node, gradient in part.items()}
    return {n: g for n, g in zip(nodes, gradients, strict=True) if g is not None}
