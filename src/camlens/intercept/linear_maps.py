"""Layers that are linear in their inputs, as functions of inputs and parameters, and transposed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclasses.dataclass(frozen=True)
class Dense:
    """A dense layer, over the last dimension.

    Example:
        >>> Dense()(torch.ones(1, 2), torch.tensor([[2.0, 3.0]])).tolist()
        [[5.0]]
        >>> Dense().transposed(torch.ones(1, 1), torch.tensor([[2.0, 3.0]])).tolist()
        [[2.0, 3.0]]
    """

    def __call__(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the outputs."""
        return functional.linear(inputs, weight, bias)

    def transposed(self, values: Tensor, weight: Tensor) -> Tensor:
        """Return the values of the outputs times the transposed layer."""
        return values @ weight.to(values)

    def scaled(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Return the weights of this layer followed by a scale of each output channel."""
        return weight * scale.view(-1, 1)


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution of one to three axes, plain or transposed.

    Attributes:
        shape: of its inputs.
        stride: for each axis, and so on.
        padding: for each axis, zeros on either side.
        dilation: for each axis.
        groups: of channels.
        backward: whether it is a transposed convolution.
        output_padding: of a transposed one, for each axis.
    """

    shape: torch.Size
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int
    backward: bool
    output_padding: list[int]

    def __call__(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the outputs."""
        return torch.convolution(
            inputs,
            weight,
            bias,
            self.stride,
            self.padding,
            self.dilation,
            self.backward,
            self.output_padding,
            self.groups,
        )

    def transposed(self, values: Tensor, weight: Tensor) -> Tensor:
        """Return the values of the outputs times the transposed layer."""
        weight = weight.to(values.dtype)
        like = weight.new_empty(1).expand(self.shape)  # of the inputs only the shape counts
        result: Tensor = torch.ops.aten.convolution_backward(
            values,
            like,
            weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            self.backward,
            self.output_padding,
            self.groups,
            [True, False, False],
        )[0]
        return result

    def scaled(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Return the weights of this layer followed by a scale of each output channel."""
        if not self.backward:
            return weight * scale.view(-1, *[1] * (weight.ndim - 1))
        grouped = weight.unflatten(0, (self.groups, -1))  # (groups, inputs, outputs, *kernel)
        factors = scale.view(self.groups, 1, -1, *[1] * (weight.ndim - 2))
        whole: Tensor = (grouped * factors).flatten(0, 1)
        return whole


@dataclasses.dataclass(frozen=True)
class Scale:
    """A factor for each channel: BatchNorm in inference mode, where no layer takes it in."""

    def __call__(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the outputs."""
        outputs = inputs * _of_channels(weight, inputs)
        return outputs if bias is None else outputs + _of_channels(bias, inputs)

    def transposed(self, values: Tensor, weight: Tensor) -> Tensor:
        """Return the values of the outputs times the transposed layer."""
        return values * _of_channels(weight, values)

    def scaled(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Return the weights of this layer followed by a scale of each output channel."""
        return weight * scale


def _of_channels(weight: Tensor, values: Tensor) -> Tensor:
    return weight.to(values).view(-1, *[1] * (values.ndim - 2))


def convolution(name: str, given: Mapping[str, Any]) -> tuple[Convolution, Tensor]:
    """Read a call of ``conv2d`` and its like.

    Args:
        name: of the function.
        given: its arguments by name.

    Returns:
        The layer, and its inputs, padded where zeros on either side do not do it.
    """
    inputs, weight = given["input"], given["weight"]
    axes = weight.ndim - 2

    def each(option: str, default: int) -> list[int]:
        value = given.get(option, default)
        values = [value] if isinstance(value, int) else list(value)
        return values * axes if len(values) == 1 else values

    dilation, padding = each("dilation", 1), given.get("padding", 0)
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
            groups=given.get("groups", 1),
            backward=backward,
            output_padding=each("output_padding", 0),
        ),
        inputs,
    )
