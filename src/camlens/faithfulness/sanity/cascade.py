"""List a network's learned tensors from the output down, and run it with shuffled ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ...options import integer
from ...probe import Probe

_T = TypeVar("_T")

#: Tensor seeds for consecutive values of ``seed`` are this far apart.
_TENSORS = 1_000_003

#: Buffers that hold what was learned: BatchNorm's statistics, and the scales of frozen BatchNorms.
#: Others, such as masks of attention, sines of positions or a mean colour, were not learned.
_LEARNED_BUFFERS = frozenset(["running_mean", "running_var", "weight", "bias"])


class Cascade:
    """The modules with learned tensors, in the order in which the randomization test shuffles them.

    The order is measured in one forward pass: the module that was entered last comes first. A
    module's own tensors therefore follow those of the modules inside it: a position embedding
    follows the blocks that it is fed to, and tensors of the model itself, such as a class token,
    come last. A module that is not called, because only its weights are used, goes with its parent.
    A tensor that several modules share is shuffled in all of them, with the first of them.

    Args:
        probe: the probe of the call.

    Attributes:
        modules: the modules' names; ``""`` is the model itself.

    Raises:
        ValueError: the model has no learned tensors, or a module stores its weights where they
            cannot be replaced.
    """

    def __init__(self, probe: Probe) -> None:
        self._model = probe.model
        modules = dict(self._model.named_modules())
        if kept := [name for name, module in modules.items() if isinstance(module, nn.RNNBase)]:
            raise ValueError(
                f"the recurrent layers {kept[:3]} keep a separate list of their weights, which "
                "cannot be replaced: shuffle a copy of the model, and compare its maps by "
                "camlens.faithfulness.spearman"
            )
        self._first, self._last, self._left = _times(probe, [name for name in modules if name])
        numbers = {name: number for number, name in enumerate(modules)}
        holders: dict[int, list[str]] = {}
        tensors: dict[int, tuple[str, Tensor]] = {}
        for name, module in modules.items():
            for attribute, tensor in _learned(module):
                holders.setdefault(id(tensor), []).append(name)
                tensors.setdefault(id(tensor), (f"{name}.{attribute}".lstrip("."), tensor))
        if not tensors:
            raise ValueError("the model has no parameters to shuffle")

        def reached(name: str) -> tuple[int, int]:
            return _nearest(self._last, name), numbers[name]

        #: By module, its tensors with their numbers among all tensors and their names.
        self._own: dict[str, list[tuple[int, str, Tensor]]] = {}
        #: By module, the earliest time at which one of its tensors may have been used.
        self._used: dict[str, int] = {}
        for number, (identity, (full, tensor)) in enumerate(tensors.items()):
            module_name = max(holders[identity], key=reached)
            self._own.setdefault(module_name, []).append((number, full, tensor))
            used = min(_nearest(self._first, name) for name in holders[identity])
            self._used[module_name] = min(used, self._used.get(module_name, used))
        self.modules = sorted(self._own, key=reached, reverse=True)

    def groups(self, steps: int | None) -> list[list[str]]:
        """Divide the modules into steps of nearly equal size; None: one step for each module.

        Raises:
            ValueError: ``steps`` is not a positive integer.
        """
        count = len(self.modules) if steps is None else min(integer("steps", steps), len(self))
        bounds = [round(len(self) * i / count) for i in range(count + 1)]
        return [self.modules[first:last] for first, last in itertools.pairwise(bounds)]

    def after(self, layer: str) -> frozenset[str]:
        """Return the modules whose tensors were first used after a layer last returned."""
        left = self._left.get(layer)
        if left is None:
            return frozenset()
        return frozenset(name for name, used in self._used.items() if used > left)

    def shuffled(self, names: Sequence[str], seed: int) -> dict[str, Tensor]:
        """Return the tensors of some modules with their values in random order.

        A BatchNorm channel's statistics, scale and offset stay together. Otherwise an active
        channel might be divided by the variance of a channel that is always zero, and the scores
        would overflow.
        """
        found = {}
        for name in names:
            module, own = self._model.get_submodule(name), self._own[name]
            together = getattr(module, "running_var", None) is not None
            for number, full, tensor in own:
                draw = torch.Generator("cpu").manual_seed(
                    seed * _TENSORS + (own[0][0] if together else number)
                )
                # On the CPU, so that a seed gives the same order on every device.
                places = torch.randperm(
                    tensor.numel(), generator=draw, dtype=torch.int32, device="cpu"
                )
                values = tensor.detach().flatten()
                found[full] = values.index_select(0, places.to(values.device)).view(tensor.shape)
        return found

    def run(self, tensors: Mapping[str, Tensor], work: Callable[[], _T]) -> _T:
        """Call ``work`` with other tensors in the model, and restore its own, even on errors."""
        lent = {f"model.{name}": tensor for name, tensor in tensors.items()}
        found: _T = torch.func.functional_call(_Holder(self._model), lent, (work,))
        return found

    def __len__(self) -> int:
        """Return the number of modules."""
        return len(self.modules)


class _Holder(nn.Module):
    """Wraps a model, so that ``torch.func.functional_call`` can replace its tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[], _T]) -> _T:
        return work()


def _times(
    probe: Probe, names: Sequence[str]
) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Return the times when modules were first entered, last entered and last left in a pass."""
    first, last, left = {"": 0}, {"": 0}, {}
    clock = itertools.count(1)

    def enter(name: str, inputs: Any, keywords: Any) -> None:
        last[name] = next(clock)
        first.setdefault(name, last[name])

    def leave(name: str, inputs: Any, output: Any) -> None:
        left[name] = next(clock)

    with torch.no_grad():
        probe.execute(names, leave, enter=enter)
    return first, last, left


def _nearest(times: Mapping[str, int], name: str) -> int:
    """Return a module's time, or its nearest called ancestor's if it was not called."""
    while name not in times:
        name = name.rpartition(".")[0]
    return times[name]


def _learned(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.is_floating_point():
            yield name, parameter
    for name, buffer in module.named_buffers(recurse=False):
        if buffer.is_floating_point() and name in _LEARNED_BUFFERS:
            yield name, buffer
