"""Attention as it is computed, with its probabilities on the graph of gradients.

Fused attention (``F.scaled_dot_product_attention``) never holds its probabilities, and those that
``nn.MultiheadAttention`` returns are not what its output is made of. Both are computed here by
their definition, softmax(Q K^T s + M) V, for the calls asked for; all others run as they are.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .modes import Interception

_FUSED = "scaled_dot_product_attention"
_MODULE = "multi_head_attention_forward"
_SOFTMAX = ("softmax", "special_softmax")
_SDPA_NAMES = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
_MODULE_SIGNATURE = inspect.signature(functional.multi_head_attention_forward)

#: The remedy of every error about attention that cannot be explained.
REMEDY = "use a class activation map, such as camlens.GradCAM or camlens.LayerCAM"


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
        if name == _FUSED:
            return self._fused(call, fused_arguments(args, kwargs))
        if name == _MODULE:
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
        probabilities = self.used(call, probabilities_of(fused_logits(given)))
        return _product(probabilities, _repeated(given, value))

    def _module(self, call: int, given: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
        single = given["query"].ndim == 2
        query, key, value = projected(given)
        logits = fused_logits({"query": query, "key": key, "attn_mask": module_mask(given)})
        probabilities = self.used(call, probabilities_of(logits))
        heads = _product(probabilities, value)  # (N, heads, queries, width)
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


def kind(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Return which kind of call that may be attention this is, or None."""
    name = getattr(func, "__name__", "").partition(".")[0]  # "softmax.int", if exported
    if name in (_FUSED, _MODULE):
        return name
    if name not in _SOFTMAX:
        return None
    given = args[0] if args else kwargs.get("input")
    axis = args[1] if len(args) > 1 else kwargs.get("dim")
    if not isinstance(given, Tensor) or given.ndim < 3 or axis not in (-1, given.ndim - 1):
        return None
    return "softmax"


def by_head(values: Tensor, images: int) -> Tensor:
    """Return (..., queries, keys) of N images as (N, heads, queries, keys)."""
    return values.reshape(images, -1, *values.shape[-2:])


def fused_arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``F.scaled_dot_product_attention`` by name."""
    given = {"attn_mask": None, "dropout_p": 0.0, "is_causal": False}
    return {**given, **dict(zip(_SDPA_NAMES, args, strict=False)), **kwargs}


def fused_logits(given: Mapping[str, Any]) -> Tensor:
    """Return Q K^T s + M, (..., queries, keys), of the arguments of fused attention."""
    query, mask = given["query"], given.get("attn_mask")
    key = _repeated(given, given["key"])
    wide = torch.promote_types(query.dtype, torch.float32)  # as the fused kernels add up
    scale = given.get("scale")
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    logits = (query.to(wide) * scale) @ key.to(wide).transpose(-2, -1)
    if given.get("is_causal"):
        mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
    if mask is None:
        return logits
    return logits.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else logits + mask


def probabilities_of(logits: Tensor) -> Tensor:
    """Return the softmax over the keys; where every key is masked out, zeros, as torch does."""
    probabilities = logits.softmax(dim=-1)
    masked = logits.detach().amax(dim=-1, keepdim=True) == -math.inf
    return probabilities.masked_fill(masked, 0)


def module_arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``F.multi_head_attention_forward`` by name.

    Raises:
        ValueError: it has keys that are no token's, or drops at random.
    """
    bound = _MODULE_SIGNATURE.bind(*args, **kwargs)
    bound.apply_defaults()
    given = dict(bound.arguments)
    for name in ("bias_k", "add_zero_attn", "static_k", "static_v"):
        value = given[name]
        if value is not None and value is not False:
            raise ValueError(
                f"nn.MultiheadAttention with {name} attends to keys that are no token's, so what "
                f"it attends to is not all on the map; {REMEDY}"
            )
    if given["training"] and given["dropout_p"]:
        raise ValueError(
            f"nn.MultiheadAttention drops {given['dropout_p']} of its probabilities: call "
            "model.eval() first"
        )
    return given


def projected(given: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the queries, keys and values of nn.MultiheadAttention, (N, heads, tokens, width)."""
    inputs = [given[name] for name in ("query", "key", "value")]
    if inputs[0].ndim == 2:
        inputs = [tensor.unsqueeze(1) for tensor in inputs]
    if given["use_separate_proj_weight"]:
        weights = [given[f"{name}_proj_weight"] for name in "qkv"]
    else:
        weights = given["in_proj_weight"].chunk(3)
    bias = given["in_proj_bias"]
    biases = [None] * 3 if bias is None else bias.chunk(3)
    query, key, value = (
        functional.linear(tensor, weight, own)  # (tokens, N, heads * width)
        .unflatten(2, (given["num_heads"], -1))
        .permute(1, 2, 0, 3)
        for tensor, weight, own in zip(inputs, weights, biases, strict=True)
    )
    return query, key, value


def module_mask(given: Mapping[str, Any]) -> Tensor | None:
    """Return the masks of nn.MultiheadAttention as one that is added to (N, heads, q, k) logits."""
    masks = []
    mask, padding = given["attn_mask"], given["key_padding_mask"]
    if mask is not None:
        masks.append(mask.unflatten(0, (-1, given["num_heads"])) if mask.ndim == 3 else mask)
    if padding is not None:
        masks.append(padding.view(-1, 1, 1, padding.shape[-1]))
    dtype = torch.promote_types(given["query"].dtype, torch.float32)
    total: Tensor | None = None
    for each in masks:
        added = each.to(dtype)
        if each.dtype == torch.bool:  # True: this key is not attended to
            added = torch.zeros_like(added).masked_fill(each, -math.inf)
        total = added if total is None else total + added
    return total


def _repeated(given: Mapping[str, Any], tensor: Tensor) -> Tensor:
    """Return keys or values once for each head of the queries, which groups of them share."""
    if not given.get("enable_gqa"):
        return tensor
    return tensor.repeat_interleave(given["query"].shape[-3] // tensor.shape[-3], dim=-3)


def _product(probabilities: Tensor, value: Tensor) -> Tensor:
    """Return the mean of the values by the probabilities, in the values' own precision."""
    wide = torch.promote_types(value.dtype, torch.float32)
    product: Tensor = (probabilities.to(wide) @ value.to(wide)).to(value.dtype)
    return product
