"""One run of a model, with a record of its modules' calls and their calls of attention."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..intercept import AttentionCalls
from ..intercept.attention_by_definition import by_head
from ..model import named
from ..probe import Probe
from ..probe.captures import first_tensor

#: Number of images in the run, if the model accepts it.
_ROWS = 2
#: Number of queries and keys to compare in order to assign them to tokens.
_SAMPLED = 8


@dataclasses.dataclass(frozen=True, eq=False)
class BlockCall:
    """One call of a module: its first input and output, and the calls of attention that it made.

    Attributes:
        name: the module's name.
        received: its first input tensor; None if it calls no attention or returns another shape.
        output: its first output tensor; None in the same cases.
        first: number of calls that may be attention before it began.
        end: number of such calls when it ended; its own have the indices first to end - 1.
    """

    name: str
    received: Tensor | None
    output: Tensor | None
    first: int
    end: int

    @property
    def keeps_shape(self) -> bool:
        """Whether it returned tokens, or a map, of the shape that it received."""
        received, output = self.received, self.output
        return (
            received is not None
            and output is not None
            and received.shape == output.shape
            and output.ndim in (3, 4)
        )

    def tensor(self) -> Tensor:
        """Return the output."""
        if self.output is None:
            raise ValueError(
                f"the block {self.name!r} returns no tensor of the shape it receives: expected a "
                "block that returns tokens like those it receives; name other blocks, as in "
                "blocks=[...]"
            )
        return self.output


class AttentionRun:
    """One run of a model: its modules' calls and its calls of attention.

    Args:
        probe: the model and the images to run.
        changed: first inputs that replace those of modules, by module name.
    """

    def __init__(self, probe: Probe, changed: Mapping[str, Tensor] | None = None) -> None:
        self.changed = dict(changed or {})
        self.calls: list[BlockCall] = []
        self.shapes: dict[int, tuple[int, ...]] = {}
        #: Rows and columns of some tokens, (N, heads, few, T) and (N, heads, T, few).
        self.samples: dict[int, tuple[Tensor, Tensor]] = {}
        self.images = len(probe.images)
        self._open: list[tuple[str, Tensor | None, int]] = []
        self.watch = AttentionCalls(self._look)
        names = [
            name
            for name, module in named(probe.model).items()
            if not isinstance(module, torch.jit.ScriptModule)
        ]
        with torch.no_grad():
            probe.execute(names, self._leave, mode=self.watch, enter=self._enter)
        self.attention = sorted(self.watch.attention)

    def attention_of(self, call: BlockCall) -> int:
        """Return the index of the single call of attention that a module made."""
        (index,) = [i for i in self.attention if call.first <= i < call.end]
        return index

    def _enter(
        self, name: str, inputs: tuple[Any, ...], keywords: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        tensors = (
            value
            for value in (*inputs, *keywords.values())
            if isinstance(value, Tensor) and value.is_floating_point()
        )
        received = next(tensors, None)
        tokens = None if received is None or received.ndim not in (3, 4) else received.clone()
        self._open.append((name, tokens, self.watch.count))
        if name not in self.changed:
            return None
        changed = self.changed[name].clone()  # a block may write to its input
        return (
            tuple(changed if value is received else value for value in inputs),
            {key: changed if value is received else value for key, value in keywords.items()},
        )

    def _leave(self, name: str, inputs: tuple[Any, ...], output: Any) -> None:
        begun, received, first = self._open.pop()
        while begun != name:  # a call that raised an error, which the model caught
            begun, received, first = self._open.pop()
        tensor = first_tensor(output)
        # Keep tensors only of modules that call attention, as a large model has many others.
        attends = self.watch.count > first
        pair: tuple[Tensor | None, Tensor | None] = (None, None)
        if attends and received is not None and tensor is not None:
            pair = (received, tensor.clone()) if received.shape == tensor.shape else pair
        self.calls.append(BlockCall(name, *pair, first, self.watch.count))

    def _look(self, call: int, logits: Tensor) -> None:
        self.shapes[call] = tuple(logits.shape)
        if logits.shape[0] % self.images or logits.ndim not in (3, 4):
            return
        heads = by_head(logits, self.images)
        few = sampled(heads.shape[-1])
        if heads.shape[-1] == heads.shape[-2]:
            self.samples[call] = heads[:, :, few].clone(), heads[:, :, :, few].clone()


def sampled(count: int) -> list[int]:
    """Return the positions of a few of ``count`` tokens."""
    return sorted({round(i * (count - 1) / (_SAMPLED - 1)) for i in range(_SAMPLED)})


def watched_run(probe: Probe) -> tuple[Probe, AttentionRun]:
    """Run the model on the first images, or on all of them if it needs its whole batch."""
    if not probe.inputs and not probe.keywords and len(probe.images) > _ROWS:
        part = Probe(probe.model, probe.images[:_ROWS])
        try:
            return part, AttentionRun(part)
        except Exception:
            pass
    part = Probe(probe.model, probe.images, probe.inputs, probe.keywords)
    return part, AttentionRun(part)
