r"""Attention computed from its definition, :math:`\mathrm{softmax}(s\,Q K^T + M)\,V`.

``F.scaled_dot_product_attention`` and ``nn.MultiheadAttention`` do not expose the probabilities
from which they compute their output. The functions here take the same arguments, by name, and
compute the same output step by step.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

#: Names of torch's attention functions: the fused one, and that of ``nn.MultiheadAttention``.
FUSED = "scaled_dot_product_attention"
MODULE = "multi_head_attention_forward"
_SOFTMAX = ("softmax", "special_softmax")

_FUSED_NAMES = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
_FUSED_DEFAULTS = {"attn_mask": None, "dropout_p": 0.0, "is_causal": False}
_MODULE_SIGNATURE = inspect.signature(functional.multi_head_attention_forward)

#: The remedy in every error about attention that cannot be explained.
REMEDY = "use a class activation map, such as camlens.GradCAM or camlens.LayerCAM"


def attention_kind(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> str | None:
    """Return the kind of a call that may be attention, or None for any other call.

    Returns:
        :data:`FUSED`, :data:`MODULE`, or ``"softmax"`` for a softmax over the last of at least
        three axes.
    """
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


def attention_arguments(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of a call of :data:`FUSED` or :data:`MODULE` by name, with defaults."""
    if name == FUSED:
        return {**_FUSED_DEFAULTS, **dict(zip(_FUSED_NAMES, args, strict=False)), **kwargs}
    bound = _MODULE_SIGNATURE.bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def check_explainable(arguments: Mapping[str, Any]) -> None:
    """Check that a call of attention can be explained, given its arguments by name.

    Raises:
        ValueError: the call uses dropout, or has keys that belong to no token.
    """
    for name in ("bias_k", "bias_v", "add_zero_attn", "static_k", "static_v"):
        value = arguments.get(name)
        if value is not None and value is not False:
            raise ValueError(
                f"nn.MultiheadAttention with {name} attends to keys that belong to no token, so a "
                f"map of the tokens cannot show all that it attends to; {REMEDY}"
            )
    if arguments["dropout_p"] and arguments.get("training", True):
        raise ValueError(
            f"expected attention without dropout, got dropout of {arguments['dropout_p']}: call "
            "model.eval() first; a model that calls F.scaled_dot_product_attention must pass "
            "dropout_p=0 when it is not training"
        )


def scaled_dot_product(
    arguments: Mapping[str, Any],
    use: Callable[[Tensor], Tensor] = lambda probabilities: probabilities,
) -> Tensor:
    """Compute the output of ``F.scaled_dot_product_attention`` step by step.

    Args:
        arguments: its arguments by name, see :func:`attention_arguments`.
        use: receives the probabilities (..., queries, keys), and returns those to continue with.

    Returns:
        (..., queries, channels of the values).

    Example:
        >>> q, k, v = torch.zeros(1, 2), torch.zeros(2, 2), torch.tensor([[1.0], [3.0]])
        >>> scaled_dot_product(attention_arguments(FUSED, (q, k, v), {})).tolist()
        [[2.0]]
    """
    value = _for_each_head(arguments, arguments["value"])
    probabilities = use(_softmax(_fused_logits(arguments)))
    if arguments["dropout_p"]:  # only in a model that trains with its maps
        probabilities = functional.dropout(probabilities, arguments["dropout_p"])
    return _weighted_mean(probabilities, value)


def multi_head(
    arguments: Mapping[str, Any],
    use: Callable[[Tensor], Tensor] = lambda probabilities: probabilities,
) -> tuple[Tensor, Tensor | None]:
    """Compute the output of ``F.multi_head_attention_forward`` in evaluation mode, step by step.

    Args:
        arguments: its arguments by name, see :func:`attention_arguments`.
        use: receives the probabilities (N, heads, queries, keys), and returns those to continue
            with.

    Returns:
        The output (queries, N, channels), and with ``need_weights`` the probabilities: (N, queries,
        keys), or with ``average_attn_weights=False`` (N, heads, queries, keys). Unbatched inputs
        give outputs without N.
    """
    query, key, value = _projected(arguments)
    probabilities = use(_softmax(_logits(query, key, _module_mask(arguments))))
    heads = _weighted_mean(probabilities, value)  # (N, heads, queries, channels of a head)
    rows = heads.permute(2, 0, 1, 3).flatten(2)
    output = functional.linear(rows, arguments["out_proj_weight"], arguments["out_proj_bias"])
    weights = probabilities.mean(dim=1) if arguments["average_attn_weights"] else probabilities
    if arguments["query"].ndim == 2:
        output, weights = output.squeeze(1), weights.squeeze(0)
    return output, weights.to(output.dtype) if arguments["need_weights"] else None


def logits_and_values(arguments: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the logits of attention, before the softmax, in float32 or wider, and its values.

    Args:
        arguments: arguments by name of :data:`FUSED` or :data:`MODULE`.

    Returns:
        (..., queries, keys) and (..., keys, channels).
    """
    if "num_heads" in arguments:
        query, key, value = _projected(arguments)
        return _logits(query, key, _module_mask(arguments)), value
    return _fused_logits(arguments), arguments["value"]


def by_head(values: Tensor, images: int) -> Tensor:
    """Return (..., queries, keys) of N images as (N, heads, queries, keys)."""
    return values.reshape(images, -1, *values.shape[-2:])


def _fused_logits(arguments: Mapping[str, Any]) -> Tensor:
    query: Tensor = arguments["query"]
    key, mask = _for_each_head(arguments, arguments["key"]), arguments["attn_mask"]
    if arguments["is_causal"]:
        shape = query.shape[-2], key.shape[-2]
        mask = torch.ones(shape, dtype=torch.bool, device=query.device).tril()
    return _logits(query, key, mask, arguments.get("scale"))


def _logits(query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None = None) -> Tensor:
    wide = torch.promote_types(query.dtype, torch.float32)  # as fused kernels accumulate
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    logits: Tensor = (query.to(wide) * scale) @ key.to(wide).transpose(-2, -1)
    if mask is None:
        return logits
    return logits.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else logits + mask


def _softmax(logits: Tensor) -> Tensor:
    """Return the softmax over the keys; zeros if every key is masked, as in torch."""
    probabilities = logits.softmax(dim=-1)
    masked = logits.detach().amax(dim=-1, keepdim=True) == -math.inf
    return probabilities.masked_fill(masked, 0)


def _weighted_mean(probabilities: Tensor, value: Tensor) -> Tensor:
    """Return the mean of the values, weighted by the probabilities, in the values' dtype."""
    wide = torch.promote_types(value.dtype, torch.float32)
    mean: Tensor = (probabilities.to(wide) @ value.to(wide)).to(value.dtype)
    return mean


def _projected(arguments: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the queries, keys and values of nn.MultiheadAttention, (N, heads, tokens, width)."""
    inputs = [arguments[name] for name in ("query", "key", "value")]
    if inputs[0].ndim == 2:
        inputs = [tensor.unsqueeze(1) for tensor in inputs]
    if arguments["use_separate_proj_weight"]:
        weights = [arguments[f"{name}_proj_weight"] for name in "qkv"]
    else:
        weights = arguments["in_proj_weight"].chunk(3)
    bias = arguments["in_proj_bias"]
    biases = [None] * 3 if bias is None else bias.chunk(3)
    query, key, value = (
        functional.linear(tensor, weight, own)  # (tokens, N, heads * width)
        .unflatten(2, (arguments["num_heads"], -1))
        .permute(1, 2, 0, 3)
        for tensor, weight, own in zip(inputs, weights, biases, strict=True)
    )
    return query, key, value


def _module_mask(arguments: Mapping[str, Any]) -> Tensor | None:
    """Combine both masks of nn.MultiheadAttention into one to add to (N, heads, q, k) logits.

    Unlike in ``F.scaled_dot_product_attention``, True in a boolean mask *excludes* a key.
    """
    masks = []
    mask, padding = arguments["attn_mask"], arguments["key_padding_mask"]
    if mask is not None:
        masks.append(mask.unflatten(0, (-1, arguments["num_heads"])) if mask.ndim == 3 else mask)
    if padding is not None:
        masks.append(padding.view(-1, 1, 1, padding.shape[-1]))
    dtype = torch.promote_types(arguments["query"].dtype, torch.float32)
    total: Tensor | None = None
    for each in masks:
        added = each.to(dtype)
        if each.dtype == torch.bool:
            added = torch.zeros_like(added).masked_fill(each, -math.inf)
        total = added if total is None else total + added
    return total


def _for_each_head(arguments: Mapping[str, Any], tensor: Tensor) -> Tensor:
    """Return keys or values, repeated if several heads of the queries share them."""
    if not arguments.get("enable_gqa"):
        return tensor
    return tensor.repeat_interleave(arguments["query"].shape[-3] // tensor.shape[-3], dim=-3)
