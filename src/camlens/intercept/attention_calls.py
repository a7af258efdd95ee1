"""Detects which calls of a run are attention: a softmax counts if its result weights values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .attention_by_definition import attention_arguments, attention_kind, logits_and_values
from .modes import Interception

#: Operations that may lie between the softmax and the product with the values.
_BETWEEN = frozenset(
    [
        *("dropout", "to", "type", "type_as", "float", "half", "bfloat16", "double"),
        *("contiguous", "clone", "view", "reshape", "view_as", "unflatten", "flatten"),
        *("unsqueeze", "squeeze", "expand", "masked_fill", "nan_to_num"),
    ]
)
_PRODUCTS = frozenset(["matmul", "__matmul__", "bmm", "baddbmm", "einsum"])


class AttentionCalls(Interception):
    """Function mode that detects which calls of a run are attention.

    It numbers the calls that may be attention as :class:`AttentionProbabilities` does.

    Args:
        look: called with the index of each such call and its logits, (..., queries, keys).

    Attributes:
        count: number of such calls.
        attention: the indices of those that are attention. A softmax counts if its result, or a
            reshaped or cast copy of it, is summed over its last axis in a product with other
            values.
        values: copies of the values that each call of attention weights, each (keys, ...).
    """

    def __init__(self, look: Callable[[int, Tensor], None]) -> None:
        super().__init__()
        self.look = look
        self.count = 0
        self.attention: set[int] = set()
        self.values: dict[int, list[Tensor]] = {}
        # Results of softmax calls by their id, kept alive so that no other tensor takes the id,
        # and their versions, as a tensor that was written to no longer counts.
        self._results: dict[int, tuple[Tensor, int, int]] = {}

    def intercept(
        self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Execute every call unchanged, and record those that may be attention."""
        result = super().intercept(func, args, kwargs)
        kind = attention_kind(func, args, kwargs)
        if kind is not None:
            call, self.count = self.count, self.count + 1
            if kind == "softmax":
                self._results[id(result)] = result, call, result._version
                logits = args[0] if args else kwargs["input"]
            else:
                with torch.no_grad():
                    logits, values = logits_and_values(attention_arguments(kind, args, kwargs))
                self._add(call, values, -2)
            with torch.no_grad():
                self.look(call, logits)
        elif self._results:
            self._follow(getattr(func, "__name__", ""), args, kwargs, result)
        return result

    def _follow(
        self, spelled: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any
    ) -> None:
        """Record whether a call is the product of probabilities and values, or precedes it."""
        name = spelled.partition(".")[0]
        if name in _PRODUCTS:
            self._weigh(name, [*args, *kwargs.values()])
        elif name.rstrip("_") in _BETWEEN and isinstance(result, Tensor):
            given = args[0] if args else kwargs.get("input")
            before = 1 if name.endswith("_") and not name.endswith("__") else 0
            known = self._call_of(given, before)
            if known is not None and given is not None and result.shape[-1] == given.shape[-1]:
                self._results[id(result)] = result, known, result._version

    def _weigh(self, name: str, given: Sequence[Any]) -> None:
        """Record the softmax calls whose last axis this product sums over, and their values."""
        if name != "einsum":
            start = 1 if name == "baddbmm" else 0
            weights, values = [x for x in given if isinstance(x, Tensor)][start : start + 2]
            if (call := self._call_of(weights)) is not None:
                self._add(call, values, max(-2, -values.ndim))
        elif isinstance(given[0], str):
            operands = given[1:] if isinstance(given[1], Tensor) else given[1]
            terms = given[0].replace(" ", "").partition("->")
            pairs = list(zip(operands, terms[0].split(","), strict=False))
            for weights, subscript in pairs:
                call, label = self._call_of(weights), subscript[-1:]
                if call is None or label in terms[2]:
                    continue
                for values, axes in pairs:
                    if values is not weights and label in axes:
                        # An ellipsis stands for any number of dimensions: count from the other end.
                        axis = axes.index(label)
                        after_ellipsis = "..." in axes[:axis]
                        self._add(call, values, axis - len(axes) if after_ellipsis else axis)

    def _add(self, call: int, values: Tensor, axis: int) -> None:
        """Record a call of attention, and its values with the axis of its keys in front."""
        self.attention.add(call)
        self.values.setdefault(call, []).append(values.detach().movedim(axis, 0).clone())

    def _call_of(self, value: Any, writes: int = 0) -> int | None:
        """Return the index of the softmax that a tensor is the result of, or None.

        Args:
            value: the tensor.
            writes: number of in-place writes by the operation that passes it on.
        """
        _, call, version = self._results.get(id(value), (None, None, 0))
        return call if call is not None and value._version == version + writes else None
