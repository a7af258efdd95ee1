"""The torch functions that the LRP rules replace, by kind, and their arguments by name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional

from ...methods.linear_layers import Convolution
from ..attention_by_definition import FUSED, MODULE, attention_arguments

#: Activations that are zero at zero, and their slopes there. They pass relevance unchanged: with
#: R = x g, the modified gradient of x is that of f(x), times f(x) / x.
ACTIVATIONS = {
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
#: The bounds of activations that clip values: argument names and defaults, by function.
BOUNDS = {
    "clamp": (("min", None), ("max", None)),
    "clip": (("min", None), ("max", None)),
    "hardtanh": (("min_val", -1.0), ("max_val", 1.0)),
}
CONVOLUTIONS = frozenset(f"conv{kind}{axes}d" for kind in ("", "_transpose") for axes in (1, 2, 3))
#: Products whose factors may all depend on the images.
PRODUCTS = frozenset(["mul", "multiply", "matmul", "bmm", "mm", "einsum", "mv", "dot"])

#: Calls that read properties of a tensor, such as the checks of a BatchNorm before it runs.
INSPECTIONS = frozenset(
    [
        *("__get__", "dim", "size", "ndimension", "numel", "is_floating_point", "__len__"),
        *("register_hook", "batch_norm"),
    ]
)
#: In-place operations that pass relevance correctly even on a part of a tensor.
SAFE_ON_PARTS = frozenset(
    ["add_", "sub_", "neg_", "copy_", "zero_", "fill_", "relu_", "masked_fill_", "requires_grad_"]
)

_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = (
    *("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
)
#: Positional arguments of replaced functions; those not listed have ("input", "inplace").
_ARGUMENTS: dict[str, tuple[str, ...]] = {
    **{name: _TRANSPOSED if "transpose" in name else _CONVOLUTION for name in sorted(CONVOLUTIONS)},
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
    **dict.fromkeys(PRODUCTS, ("input", "other")),
    "einsum": ("equation", "operand", "other", "third"),
}


@dataclasses.dataclass(frozen=True)
class ReplacedCall:
    """A call to replace, with its arguments.

    Attributes:
        spelled: the function's name, ``"relu_"`` if it works in place.
        func: the function.
        args: its positional arguments.
        kwargs: its keyword arguments.
        values: all arguments by name.
    """

    spelled: str
    func: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    values: Mapping[str, Any]

    def execute(self) -> Any:
        """Execute the original call."""
        return self.func(*self.args, **self.kwargs)


def arguments(spelled: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a replaced function by name."""
    if spelled in (FUSED, MODULE):
        return attention_arguments(spelled, args, kwargs)
    names = _ARGUMENTS.get(spelled.rstrip("_"), ("input", "inplace"))
    return {**dict(zip(names, args, strict=False)), **kwargs}


def convolution(name: str, arguments: Mapping[str, Any]) -> tuple[Convolution, Tensor]:
    """Return the layer that a call of ``conv2d`` or a similar function computes.

    Args:
        name: the function's name.
        arguments: its arguments by name.

    Returns:
        The layer and its inputs. With ``padding="same"`` the inputs are padded already, as the
        numbers of zeros on the two sides may differ.
    """
    inputs, weight = arguments["input"], arguments["weight"]
    axes = weight.ndim - 2

    def each(option: str, default: int) -> list[int]:
        value = arguments.get(option, default)
        values = [value] if isinstance(value, int) else list(value)
        return values * axes if len(values) == 1 else values

    dilation, padding = each("dilation", 1), arguments.get("padding", 0)
    if padding == "same":
        spans = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        sides = [side for span in reversed(spans) for side in (span // 2, span - span // 2)]
        inputs, amounts = functional.pad(inputs, sides), [0] * axes
    else:
        amounts = [0] * axes if padding == "valid" else each("padding", 0)
    backward = "transpose" in name
    return (
        Convolution(
            shape=inputs.shape,
            stride=each("stride", 1),
            padding=amounts,
            dilation=dilation,
            groups=arguments.get("groups", 1),
            backward=backward,
            output_padding=each("output_padding", 0),
        ),
        inputs,
    )
