"""Captures the attention probabilities of a run as part of its autograd graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .attention_by_definition import (
    REMEDY,
    attention_arguments,
    attention_kind,
    by_head,
    check_explainable,
    multi_head,
    scaled_dot_product,
)
from .modes import Interception, check_no_checkpoint


class AttentionProbabilities(Interception):
    """Function mode that captures the attention probabilities of some calls, with gradients.

    Calls that may be attention are numbered in order: ``F.scaled_dot_product_attention``,
    ``nn.MultiheadAttention``, and every softmax over the last of three or more axes. Beforehand,
    :class:`AttentionCalls` detects which of them are attention. Fused attention does not store its
    probabilities, and ``nn.MultiheadAttention`` does not compute its output from those it returns,
    so for the captured calls both are computed from their definition.

    The probabilities are (N, heads, queries, keys), or have the shape that an explicit softmax
    returned. If an autograd graph exists at that point they are part of it; otherwise they are a
    leaf at which one starts.

    Args:
        calls: the indices of the calls to capture.

    Attributes:
        seen: the probabilities of the last run, by the index of the call.
        count: number of calls in the current run.

    Raises:
        ValueError: a captured call has dropout, or keys that belong to no token (``add_bias_kv``,
            ``add_zero_attn``).

    Example:
        >>> query, key = torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 2, 2)
        >>> value = torch.tensor([[[[1.0, 0.0], [0.0, 3.0]]]])
        >>> with AttentionProbabilities([0]) as mode:
        ...     output = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        >>> output.tolist(), mode.seen[0].tolist()
        ([[[[0.5, 1.5]]]], [[[[0.5, 0.5]]]])
        >>> torch.autograd.grad(output.sum(), mode.seen[0])[0].tolist()
        [[[[1.0, 3.0]]]]
    """

    def __init__(self, calls: Collection[int]) -> None:
        super().__init__()
        self.calls = frozenset(calls)
        self.seen: dict[int, Tensor] = {}
        self.count = 0

    def __enter__(self) -> AttentionProbabilities:
        """Start a run."""
        self.seen, self.count = {}, 0
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def check_used(self) -> None:
        """Check that the model made every call to capture.

        Raises:
            ValueError: a call is missing.
        """
        if missing := sorted(self.calls - self.seen.keys()):
            raise ValueError(
                f"expected the same attention calls as when the model was measured, but this run "
                f"made {self.count}, without the calls {missing[:3]}: the model does not run "
                f"the same operations in every call; {REMEDY}"
            )

    def used(self, call: int, probabilities: Tensor) -> Tensor:
        """Store the probabilities of a call, and return those that the model continues with."""
        if probabilities.requires_grad:
            check_no_checkpoint("the capture of attention probabilities")
        else:
            probabilities = probabilities.detach().requires_grad_()
            torch.set_grad_enabled(True)
        self.seen[call] = probabilities
        return probabilities

    def intercept(
        self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Compute captured attention from its definition; execute other calls unchanged."""
        name = attention_kind(func, args, kwargs)
        if name is None:
            return super().intercept(func, args, kwargs)
        call = self.count
        self.count += 1
        if call not in self.calls:
            return super().intercept(func, args, kwargs)
        if name == "softmax":
            # A copy, as the model may overwrite it, which must not change the captured tensor.
            return self.used(call, func(*args, **kwargs)).clone()
        arguments = attention_arguments(name, args, kwargs)
        check_explainable(arguments)
        by_definition = multi_head if "num_heads" in arguments else scaled_dot_product
        return by_definition(arguments, lambda probabilities: self.used(call, probabilities))


class MeanProbabilities(AttentionProbabilities):
    """Captures the mean over the heads, (N, queries, keys) in float32 or wider, without gradients.

    Args:
        calls: the indices of the calls to capture.
        images: N.
    """

    def __init__(self, calls: Collection[int], images: int) -> None:
        super().__init__(calls)
        self.images = images

    def used(self, call: int, probabilities: Tensor) -> Tensor:
        """Store the mean, and return the probabilities unchanged."""
        heads = by_head(probabilities.detach(), self.images)
        wide = torch.promote_types(heads.dtype, torch.float32)
        self.seen[call] = heads.mean(dim=1, dtype=wide)
        return probabilities
