"""One traced pass of a model, which records every module's output and the autograd graph."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

from ..intercept import Interception, UnbrokenGradients
from ..model import named
from ..probe import Probe
from ..probe.captures import first_tensor, replace_first
from ..probe.derivatives import NO_GRADIENT
from .graph import successors, walk


@dataclasses.dataclass(frozen=True, eq=False)
class ModuleCall:
    """One call of a module in a traced pass.

    Attributes:
        name: dotted name of the module.
        module: the module.
        shape: shape of its output tensor, or of the first tensor in a tuple or list.
        node: the autograd node of the output's copy that the model continued with, which no other
            call shares; None if no gradient was recorded.
        repeats: the earlier call whose tensor this one returned unchanged: that of a container's
            last part, or the one before an identity.
        input_shape: shape of the first tensor among the inputs; None if there is none.
    """

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    node: Node | None
    repeats: ModuleCall | None = None
    input_shape: tuple[int, ...] | None = None

    @property
    def has_cells(self) -> bool:
        """Whether the output's shape allows more than a vector for each image."""
        longer = sum(length > 1 for length in self.shape)
        return len(self.shape) > 2 and longer > 1 + (self.shape[0] > 1)

    @property
    def origin(self) -> ModuleCall:
        """The call that computed the tensor: this one, unless it repeats another."""
        call = self
        while call.repeats is not None:
            call = call.repeats
        return call


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """One forward pass with gradients from the images to the scores.

    Attributes:
        calls: every call of a module that returned a floating-point tensor, in the order in which
            they finished.
        images: the autograd node of the copy of the images that the model received.
        size: lengths of the images' spatial axes, in pixels.
        outputs: the model's output.
        scores: (N, K) scores selected from the output, with their graph.
    """

    calls: tuple[ModuleCall, ...]
    images: Node
    size: tuple[int, ...]
    outputs: Any
    scores: Tensor

    def last_calls(self) -> list[ModuleCall]:
        """Return the last call of each module, in the order in which they finished."""
        latest: dict[str, ModuleCall] = {}
        for call in self.calls:
            latest.pop(call.name, None)
            latest[call.name] = call
        return list(latest.values())


class _Tracer:
    """A hook that records each module's output, and passes on a copy of it."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.modules = modules
        self.calls: list[ModuleCall] = []
        self._handed_on: dict[int, tuple[Tensor, int, ModuleCall]] = {}

    def __call__(self, name: str, inputs: tuple[Any, ...], output: Any) -> Any:
        tensor = first_tensor(output)
        if tensor is None:
            return None
        copy = tensor.clone()
        before = next((x for x in inputs if isinstance(x, Tensor)), None)
        call = ModuleCall(
            name=name,
            module=self.modules[name],
            shape=tuple(tensor.shape),
            node=copy.grad_fn,
            repeats=self._handed_on_as(tensor),
            input_shape=None if before is None else tuple(before.shape),
        )
        self.calls.append(call)
        self._handed_on[id(copy)] = copy, copy._version, call
        return replace_first(output, copy)

    def _handed_on_as(self, tensor: Tensor) -> ModuleCall | None:
        """Return the call that passed on this tensor, unless it was written to afterwards."""
        copy, version, call = self._handed_on.get(id(tensor), (None, 0, None))
        return call if copy is tensor and copy._version == version else None


def trace(probe: Probe) -> Trace:
    """Run the model once with gradients from a copy of the images, and record every module.

    If the model switches gradients off on the way, it runs once more with gradients throughout.

    Raises:
        TypeError: the output holds no scores.
        ValueError: the number of scores does not fit the number of images.
    """
    constant = [buffer for buffer in probe.model.buffers() if not buffer.requires_grad]
    try:
        traced = _trace(probe, None)
        roots = [node for node in (traced.scores.grad_fn,) if node is not None]
        if traced.images not in walk(roots, successors):
            # With gradients, writing to a parameter under no_grad raises an error.
            with contextlib.suppress(RuntimeError):
                traced = _trace(probe, UnbrokenGradients())
        return traced
    finally:
        for buffer in constant:
            if buffer.requires_grad:  # the model wrote to it
                buffer.detach_()


def _trace(probe: Probe, mode: Interception | None) -> Trace:
    modules = {
        name: module
        for name, module in named(probe.model).items()
        if not isinstance(module, torch.jit.ScriptModule)
    }
    tracer = _Tracer(modules)
    with torch.enable_grad():
        given = probe.images.detach().requires_grad_().clone()
        # Read before the model runs: writing to its input would give the tensor another node.
        images = get_gradient_edge(given).node
        outputs, _ = probe.execute(list(modules), tracer, given, gradients=True, mode=mode)
        scores = probe.select(outputs, len(given)).scores
    if not scores.requires_grad and callable(probe.targets):
        raise ValueError(NO_GRADIENT)
    return Trace(tuple(tracer.calls), images, probe.size, outputs, scores)
