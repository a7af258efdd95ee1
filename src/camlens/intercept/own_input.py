"""Finds the tensor that a model makes of its images before its first layer mixes their pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .modes import Interception

_CONVOLUTIONS = frozenset(["conv1d", "conv2d", "conv3d"])
_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
#: Calls that combine the values of several pixels or channels by weights.
_MIXING = frozenset(
    [
        *(*_CONVOLUTIONS, "linear", "bilinear", "einsum"),
        *("convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
        *("matmul", "__matmul__", "__rmatmul__", "bmm", "mm", "addmm", "baddbmm", "tensordot"),
    ]
)


class OwnInput(Interception):
    """Function mode that keeps the images as the model pads, crops or resizes them.

    Args:
        shape: of the images, (N, C, *size).
        unbroken: whether to record gradients even where the model switches them off.

    Attributes:
        tensor: the last tensor of N images of C channels, (N, C, ...) or (N, ..., C), until the
            first convolution or product, with its graph; None if there is none.
        complete: whether that call was reached.
        padding: rows along each axis by which that convolution lacks padding of its own at each
            end: so much of the tensor's padding belongs to the convolution, as TensorFlow's does.
    """

    def __init__(self, shape: Sequence[int], *, unbroken: bool = False) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.unbroken = unbroken
        self.tensor: Tensor | None = None
        self.complete = False
        self.padding = (0.0,) * (len(self.shape) - 2)

    def intercept(
        self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Execute every call unchanged, and keep its tensor if it is of images."""
        if self.unbroken and func is torch._C._set_grad_enabled and not args[0]:
            return None
        name = getattr(func, "__name__", "")
        if self.complete or name == "__get__":  # such as the shape of a tensor
            return super().intercept(func, args, kwargs)
        self.complete = name in _MIXING
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        for value in given[:1] if self.complete else given:  # the weights come second
            self._keep(value)
        if self.complete and self.tensor is not None:
            self.tensor = self.tensor.clone()  # the model may write to it later
            if name in _CONVOLUTIONS:
                given_by_name = {**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs}
                self.padding = _lacking(given_by_name, self.padding)
        result = super().intercept(func, args, kwargs)
        if not self.complete:
            self._keep(result)
        return result

    def _keep(self, value: Any) -> None:
        n, channels = self.shape[:2]
        plausible = isinstance(value, Tensor) and value.ndim == len(self.shape)
        if plausible and len(value) == n and channels in (value.shape[1], value.shape[-1]):
            self.tensor = value


def _lacking(arguments: Mapping[str, Any], none: tuple[float, ...]) -> tuple[float, ...]:
    """Return the padding at each end that a convolution lacks to keep the size of its input."""
    weight, padding = arguments.get("weight"), arguments.get("padding", 0)
    if padding == "same" or not isinstance(weight, Tensor):  # quantized weights are no tensor
        return none
    axes = weight.ndim - 2
    stride, dilation = arguments.get("stride", 1), arguments.get("dilation", 1)
    given = [_each(value, axes) for value in (stride, dilation, padding)]
    return tuple(
        max(0.0, (d * (side - 1) + 1 - s) / 2 - p)
        for side, s, d, p in zip(weight.shape[2:], *given, strict=True)
    )


def _each(value: int | str | Sequence[int], axes: int) -> Sequence[int]:
    if isinstance(value, str):  # "valid"
        return (0,) * axes
    return (value,) * axes if isinstance(value, int) else tuple(value) * (axes // len(value))
