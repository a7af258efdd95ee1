"""Watch which calls are attention: which softmax weighs values, and what the logits are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .definitions import (
    FUSED,
    MODULE,
    fused_arguments,
    kind,
    logits_of,
    module_arguments,
    module_mask,
    projected,
)
from .modes import Interception

#: What may happen to probabilities between the softmax and the product with the values.
_HANDED_ON = frozenset(
    [
        *("dropout", "to", "type", "type_as", "float", "half", "bfloat16", "double"),
        *("contiguous", "clone", "view", "reshape", "view_as", "unflatten", "flatten"),
        *("unsqueeze", "squeeze", "expand", "masked_fill", "nan_to_num"),
    ]
)
_PRODUCTS = frozenset(["matmul", "__matmul__", "bmm", "baddbmm", "einsum"])


class AttentionWatch(Interception):
    """Number the calls that may be attention as :class:`AttentionProbabilities` does, and look.

    Args:
        look: receives the number of a call and its logits, (..., queries, keys), as it is made.

    Attributes:
        count: how many calls were made.
        attention: the numbers of those that are attention: of a softmax, that its result, or a
            reshaped or cast copy of it, weighs values in a product over its last axis.
    """

    def __init__(self, look: Callable[[int, Tensor], None]) -> None:
        super().__init__()
        self.look = look
        self.count = 0
        self.attention: set[int] = set()
        # By identity; held, so that no other tensor gets the same one. With their version: what
        # else is written to them in place, such as a sum of 1 over the queries, is not handed on.
        self._results: dict[int, tuple[Tensor, int, int]] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Let every call through, and note those that may be attention."""
        kwargs = kwargs or {}
        result = super().__torch_function__(func, types, args, kwargs)
        if not self.live or self.suspended:
            return result
        found = kind(func, args, kwargs)
        if found is not None:
            call, self.count = self.count, self.count + 1
            self._note(found, call, (args, kwargs), result)
        elif self._results:
            self._follow(getattr(func, "__name__", ""), args, kwargs, result)
        return result

    def _note(self, found: str, call: int, given: tuple[Any, Any], result: Any) -> None:
        args, kwargs = given
        with torch.no_grad():
            if found == FUSED:
                self.attention.add(call)
                self.look(call, logits_of(fused_arguments(args, kwargs)))
            elif found == MODULE:
                self.attention.add(call)
                named = module_arguments(args, kwargs)
                query, key, _ = projected(named)
                mask = module_mask(named)
                self.look(call, logits_of({"query": query, "key": key, "attn_mask": mask}))
            else:
                self._results[id(result)] = result, call, result._version
                self.look(call, args[0] if args else kwargs["input"])

    def _follow(
        self, spelled: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any
    ) -> None:
        name = spelled.partition(".")[0]
        if name in _PRODUCTS:
            for call in self._weighing(name, args):
                self.attention.add(call)
        elif name.rstrip("_") in _HANDED_ON and isinstance(result, Tensor):
            given = args[0] if args else kwargs.get("input")
            before = 1 if name.endswith("_") and not name.endswith("__") else 0
            known = self._call_of(given, before)
            if known is not None and given is not None and result.shape[-1] == given.shape[-1]:
                self._results[id(result)] = result, known, result._version

    def _weighing(self, name: str, args: Sequence[Any]) -> list[int]:
        """Return the softmax calls whose last axis this product sums over."""
        if name == "einsum":
            operands = args[1:] if len(args) != 2 or isinstance(args[1], Tensor) else args[1]
            terms = str(args[0]).replace(" ", "").partition("->")
            subscripts = terms[0].split(",")
            weights = [
                operand
                for operand, subscript in zip(operands, subscripts, strict=False)
                if subscript[-1] not in terms[2]
            ]
        else:
            weights = [args[1] if name == "baddbmm" else args[0]]
        return [call for each in weights if (call := self._call_of(each)) is not None]

    def _call_of(self, value: Any, writes: int = 0) -> int | None:
        """Return which softmax a tensor is of, if nothing else was written to it.

        Args:
            value: the tensor.
            writes: how often what hands it on has just written to it.
        """
        _, call, version = self._results.get(id(value), (None, None, 0))
        return call if call is not None and value._version == version + writes else None
