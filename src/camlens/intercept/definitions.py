"""Attention by its definition: the arguments of torch's calls, logits, probabilities, product."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

#: Names of the calls that may be attention.
FUSED = "scaled_dot_product_attention"
MODULE = "multi_head_attention_forward"
_SOFTMAX = ("softmax", "special_softmax")

_FUSED_NAMES = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
_MODULE_SIGNATURE = inspect.signature(functional.multi_head_attention_forward)

#: The remedy of every error about attention that cannot be explained.
REMEDY = "use a class activation map, such as camlens.GradCAM or camlens.LayerCAM"


def kind(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Return which kind of call that may be attention this is, or None."""
    name = getattr(func, "__name__", "").partition(".")[0]  # "softmax.int", if exported
    if name in (FUSED, MODULE):
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
    return {**given, **dict(zip(_FUSED_NAMES, args, strict=False)), **kwargs}


def logits_of(given: Mapping[str, Any]) -> Tensor:
    """Return Q K^T s + M, (..., queries, keys), of the arguments of fused attention."""
    query: Tensor = given["query"]
    mask: Tensor | None = given.get("attn_mask")
    key = repeated(given, given["key"])
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


def repeated(given: Mapping[str, Any], tensor: Tensor) -> Tensor:
    """Return keys or values once for each head of the queries, which groups of them share."""
    if not given.get("enable_gqa"):
        return tensor
    return tensor.repeat_interleave(given["query"].shape[-3] // tensor.shape[-3], dim=-3)


def product(probabilities: Tensor, value: Tensor) -> Tensor:
    """Return the mean of the values by the probabilities, in the values' own precision."""
    wide = torch.promote_types(value.dtype, torch.float32)
    product: Tensor = (probabilities.to(wide) @ value.to(wide)).to(value.dtype)
    return product
