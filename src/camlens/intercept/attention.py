"""Attention as it is computed, with its probabilities on the graph of gradients.

Fused attention (``F.scaled_dot_product_attention``) never holds its probabilities, and those that
``nn.MultiheadAttention`` returns are not what its output is made of. Both are computed here by
their definition, softmax(Q K^T s + M) V, for the calls asked for; all others run as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .definitions import (
    FUSED,
    MODULE,
    REMEDY,
    by_head,
    fused_arguments,
    kind,
    logits_of,
    module_arguments,
    module_mask,
    probabilities_of,
    product,
    projected,
    repeated,
)
from .modes import Interception


class AttentionProbabilities(Interception):
    """Keep the probabilities of some calls of attention, and start the graph of gradients there.

    Calls that may be attention are numbered as they are made: fused attention,
    ``nn.MultiheadAttention``, and every softmax over the last of three or more axes. Which of them
    are attention, and whose, is measured before (:mod:`camlens.layers.attention`).

    The probabilities are (N, heads, queries, keys), or what an explicit softmax gave. They are part
    of the graph where one was under way, or else a leaf with which one starts.

    Args:
        calls: the numbers of the calls.

    Attributes:
        seen: the probabilities, by number of the call, of the last run.
        count: how many calls the run has made.

    Raises:
        ValueError: a call asked for has dropout, or keys that are no token's (``add_bias_kv``,
            ``add_zero_attn``).

    Example:
        >>> query, key = torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 2, 2)
        >>> value = torch.tensor([[[[1.0, 0.0], [0.0, 3.0]]]])
        >>> with AttentionProbabilities([0]) as mode:
        ...     output = functional.scaled_dot_product_attention(query, key, value)
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
        """Begin a run."""
        self.seen, self.count = {}, 0
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def check_used(self) -> None:
        """Check that every call asked for was made.

        Raises:
            ValueError: one was not.
        """
        if missing := sorted(self.calls - self.seen.keys()):
            raise ValueError(
                f"the model made {self.count} calls that may be attention, not those measured "
                f"before ({missing[:3]} are missing): it takes another way from call to call; "
                f"{REMEDY}"
            )

    def used(self, call: int, probabilities: Tensor) -> Tensor:
        """Keep a call's probabilities and return those that the model goes on with."""
        if not probabilities.requires_grad:
            probabilities = probabilities.detach().requires_grad_()
            torch.set_grad_enabled(True)
        self.seen[call] = probabilities
        return probabilities

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Compute the attention asked for by its definition; let every other call through."""
        kwargs = kwargs or {}
        if not self.live or self.suspended:
            return func(*args, **kwargs)
        name = kind(func, args, kwargs)
        if name is None:
            return super().__torch_function__(func, types, args, kwargs)
        call = self.count
        self.count += 1
        if call not in self.calls:
            return super().__torch_function__(func, types, args, kwargs)
        if name == FUSED:
            return self._fused(call, fused_arguments(args, kwargs))
        if name == MODULE:
            return self._module(call, module_arguments(args, kwargs))
        # A copy: what the model does to it in place must not change what is kept.
        return self.used(call, func(*args, **kwargs)).clone()

    def _fused(self, call: int, given: Mapping[str, Any]) -> Tensor:
        if given["dropout_p"]:
            raise ValueError(
                f"attention is computed with dropout of {given['dropout_p']}: call model.eval(), "
                "or pass dropout_p only while training"
            )
        value = given["value"]
        probabilities = self.used(call, probabilities_of(logits_of(given)))
        return product(probabilities, repeated(given, value))

    def _module(self, call: int, given: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
        single = given["query"].ndim == 2
        query, key, value = projected(given)
        logits = logits_of({"query": query, "key": key, "attn_mask": module_mask(given)})
        probabilities = self.used(call, probabilities_of(logits))
        heads = product(probabilities, value)  # (N, heads, queries, width)
        rows = heads.permute(2, 0, 1, 3).flatten(2)
        output = functional.linear(rows, given["out_proj_weight"], given["out_proj_bias"])
        weights = probabilities.mean(dim=1) if given["average_attn_weights"] else probabilities
        if single:
            output, weights = output.squeeze(1), weights.squeeze(0)
        return output, weights.to(output.dtype) if given["need_weights"] else None


class MeanProbabilities(AttentionProbabilities):
    """Keep the mean over the heads, (N, queries, keys), without gradients."""

    def __init__(self, calls: Collection[int], images: int) -> None:
        super().__init__(calls)
        self.images = images

    def used(self, call: int, probabilities: Tensor) -> Tensor:
        """Keep the mean; the model goes on with the probabilities as they are."""
        heads = by_head(probabilities.detach(), self.images)
        wide = torch.promote_types(heads.dtype, torch.float32)
        self.seen[call] = heads.mean(dim=1, dtype=wide)
        return probabilities
