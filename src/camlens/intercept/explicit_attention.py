"""Attention written out as products and a softmax, which a function mode can see one by one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def scaled_dot_product(  # noqa: PLR0917  the signature of the function that it stands for
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    r"""Return :math:`\mathrm{softmax}(s\,Q K^T + M)\,V`, as ``scaled_dot_product_attention`` does.

    Example:
        >>> q, k, v = torch.zeros(1, 2), torch.zeros(2, 2), torch.tensor([[1.0], [3.0]])
        >>> scaled_dot_product(q, k, v).tolist()
        [[2.0]]
    """
    if dropout_p:
        raise ValueError("attention drops out at random: call model.eval() before you explain it")
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = (x.repeat_interleave(repeats, dim=-3) for x in (key, value))
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    logits = torch.matmul(query * factor, key.transpose(-2, -1))
    if is_causal:
        seen = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
        logits = logits.masked_fill(~seen, -math.inf)
    if attn_mask is not None:
        logits = _masked(logits, attn_mask, seen=True)
    return torch.matmul(functional.softmax(logits, dim=-1), value)


def _masked(logits: Tensor, mask: Tensor, *, seen: bool) -> Tensor:
    if mask.dtype != torch.bool:
        return logits + mask
    return logits.masked_fill(~mask if seen else mask, -math.inf)


def multi_head(given: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
    """Return what ``multi_head_attention_forward`` does, given its arguments by name.

    Raises:
        ValueError: an option that this does not write out.
    """
    for name in ("bias_k", "bias_v", "static_k", "static_v", "add_zero_attn"):
        if given.get(name) is not None and given.get(name) is not False:
            raise ValueError(f"relevance has no rule for nn.MultiheadAttention with {name}")
    if given.get("training", False) and given.get("dropout_p"):
        raise ValueError("attention drops out at random: call model.eval() before you explain it")
    heads = given["num_heads"]
    tokens = [given[name] for name in ("query", "key", "value")]
    batched = tokens[0].ndim == 3
    if not batched:
        tokens = [part.unsqueeze(1) for part in tokens]
    query, key, value = (  # (N, heads, tokens, channels)
        part.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3) for part in _projected(tokens, given)
    )
    logits = torch.matmul(query / math.sqrt(query.shape[-1]), key.transpose(-2, -1))
    mask, padding = given.get("attn_mask"), given.get("key_padding_mask")
    if mask is not None:
        if mask.ndim == 3:
            mask = mask.unflatten(0, (-1, heads))
        logits = _masked(logits, mask, seen=False)
    if padding is not None:
        padding = padding if batched else padding.unsqueeze(0)
        logits = _masked(logits, padding[:, None, None], seen=False)
    weights = functional.softmax(logits, dim=-1)
    heard = torch.matmul(weights, value).permute(2, 0, 1, 3).flatten(2)
    output = functional.linear(heard, given["out_proj_weight"], given["out_proj_bias"])
    returned = None
    if given.get("need_weights", True):
        returned = weights.mean(dim=1) if given.get("average_attn_weights", True) else weights
        returned = returned if batched else returned.squeeze(0)
    return output if batched else output.squeeze(1), returned


def _projected(tokens: list[Tensor], given: Mapping[str, Any]) -> list[Tensor]:
    """Return queries, keys and values, each by the weights of its own."""
    bias = given["in_proj_bias"]
    biases = [None] * 3 if bias is None else list(bias.chunk(3))
    if given.get("use_separate_proj_weight", False):
        weights = [given[f"{letter}_proj_weight"] for letter in "qkv"]
    else:
        weights = list(given["in_proj_weight"].chunk(3))
    return [
        functional.linear(part, weight, own)
        for part, weight, own in zip(tokens, weights, biases, strict=True)
    ]
