"""Calls that relevance replaces: their arguments by name, and which functions are alike."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Given:
    """A call that is replaced.

    Attributes:
        spelled: the function's name, ``"relu_"`` where it works in place.
        func: the function.
        args: its positional arguments.
        kwargs: its keyword arguments.
        values: both by name.
    """

    spelled: str
    func: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    values: Mapping[str, Any]

    def call(self) -> Any:
        """Call the function as the model did."""
        return self.func(*self.args, **self.kwargs)


#: Activations that are zero at zero, and their slopes there. They pass relevance as it is: with
#: R = x g, the modified gradient by x is that by f(x) times f(x) / x.
RATIOS = {
    "gelu": 0.5,
    "silu": 0.5,
    "hardswish": 0.5,
    "mish": math.tanh(math.log(2)),
    "tanh": 1.0,
    "elu": 1.0,
    "celu": 1.0,
    "selu": 1.0507009873554805,
    "relu6": 0.0,
    "hardtanh": 0.0,
    "clamp": 0.0,
    "clip": 0.0,
}
BOUNDS = {
    "clamp": (("min", None), ("max", None)),
    "clip": (("min", None), ("max", None)),
    "hardtanh": (("min_val", -1.0), ("max_val", 1.0)),
}
CONVOLUTIONS = frozenset(f"conv{kind}{axes}d" for kind in ("", "_transpose") for axes in (1, 2, 3))


def arguments(spelled: str) -> tuple[str, ...]:
    """Return the names of a function's positional arguments."""
    name = spelled.rstrip("_")
    if name.startswith("conv_transpose"):
        tail = ("stride", "padding", "output_padding", "groups", "dilation")
        return ("input", "weight", "bias", *tail)
    if name in CONVOLUTIONS:
        return ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    return ARGUMENTS.get(name, ("input", "inplace"))


#: Products, of which each factor may depend on the image.
FACTORED = frozenset(["mul", "multiply", "matmul", "bmm", "mm", "einsum", "mv", "dot"])
#: The positional arguments of functions that are replaced.
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "linear": ("input", "weight", "bias"),
    "batch_norm": (
        *("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    ),
    "hardtanh": ("input", "min_val", "max_val", "inplace"),
    "clamp": ("input", "min", "max"),
    "clip": ("input", "min", "max"),
    "elu": ("input", "alpha", "inplace"),
    "celu": ("input", "alpha", "inplace"),
    "layer_norm": ("input", "normalized_shape", "weight", "bias", "eps"),
    "rms_norm": ("input", "normalized_shape", "weight", "eps"),
    "normalize": ("input", "p", "dim", "eps"),
    "scaled_dot_product_attention": ("query", "key", "value", "attn_mask"),
    "multi_head_attention_forward": (
        *("query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight"),
        *("in_proj_bias", "bias_k", "bias_v", "add_zero_attn", "dropout_p", "out_proj_weight"),
        *("out_proj_bias", "training", "key_padding_mask", "need_weights", "attn_mask"),
        *("use_separate_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"),
        *("static_k", "static_v", "average_attn_weights", "is_causal"),
    ),
    **dict.fromkeys(FACTORED, ("input", "other")),
    "einsum": ("equation", "operand", "other", "third"),
}

#: What only looks at a tensor, such as the checks of a BatchNorm before it runs.
LOOKING = frozenset(
    [
        *("__get__", "dim", "size", "ndimension", "numel", "is_floating_point", "__len__"),
        *("register_hook", "batch_norm"),
    ]
)

#: What passes relevance as it should also where it works in place on a part of a tensor.
WRITING = frozenset(
    ["add_", "sub_", "neg_", "copy_", "zero_", "fill_", "relu_", "masked_fill_", "requires_grad_"]
)
