"""Linear layers as functions of their inputs and parameters, with their transposes.

"Linear" includes affine: dense layers, convolutions, and BatchNorm in inference mode, each with or
without a bias. The relevance rules (:mod:`camlens.methods.relevance`) use these functions.
"""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional


@dataclasses.dataclass(frozen=True)
class Dense:
    """A dense (fully connected) layer, applied to the last dimension.

    Example:
        >>> Dense()(torch.ones(1, 2), torch.tensor([[2.0, 3.0]])).tolist()
        [[5.0]]
        >>> Dense().transposed(torch.ones(1, 1), torch.tensor([[2.0, 3.0]])).tolist()
        [[2.0, 3.0]]
    """

    def __call__(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the layer's outputs."""
        return functional.linear(inputs, weight, bias)

    def transposed(self, values: Tensor, weight: Tensor) -> Tensor:
        """Apply the transposed layer to values of the outputs' shape."""
        return values @ weight.to(values)

    def scaled(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Return this layer's weights, with each output channel scaled by (channels,) factors."""
        return weight * scale.view(-1, 1)


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution over one to three axes, plain or transposed.

    Attributes:
        shape: the shape of its inputs, (N, C, *size).
        stride: one number for each axis.
        padding: zeros on either side, one number for each axis.
        dilation: one number for each axis.
        groups: number of groups of channels.
        backward: whether it is a transposed convolution.
        output_padding: one number for each axis, for a transposed convolution.
    """

    shape: torch.Size
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int
    backward: bool
    output_padding: list[int]

    def __call__(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the layer's outputs."""
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
        """Apply the transposed layer to values of the outputs' shape."""
        weight = weight.to(values.dtype)
        like = weight.new_empty(1).expand(self.shape)  # only the shape of the inputs matters
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
        """Return this layer's weights, with each output channel scaled by (channels,) factors."""
        if not self.backward:
            return weight * scale.view(-1, *[1] * (weight.ndim - 1))
        grouped = weight.unflatten(0, (self.groups, -1))  # (groups, inputs, outputs, *kernel)
        factors = scale.view(self.groups, 1, -1, *[1] * (weight.ndim - 2))
        whole: Tensor = (grouped * factors).flatten(0, 1)
        return whole


@dataclasses.dataclass(frozen=True)
class Scale:
    """A factor for each channel: BatchNorm in inference mode that follows no linear layer."""

    def __call__(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the layer's outputs."""
        outputs = inputs * _of_channels(weight, inputs)
        return outputs if bias is None else outputs + _of_channels(bias, inputs)

    def transposed(self, values: Tensor, weight: Tensor) -> Tensor:
        """Apply the transposed layer to values of the outputs' shape."""
        return values * _of_channels(weight, values)

    def scaled(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Return this layer's weights, with each output channel scaled by (channels,) factors."""
        return weight * scale


def _of_channels(weight: Tensor, values: Tensor) -> Tensor:
    return weight.to(values).view(-1, *[1] * (values.ndim - 2))


LinearLayer: TypeAlias = Dense | Convolution | Scale


@dataclasses.dataclass(frozen=True, eq=False)
class Forward:
    """A linear layer with the inputs and outputs of one forward pass.

    Attributes:
        layer: the layer.
        weight: its weights.
        bias: (channels,) or None.
        inputs: the inputs a, of any shape that the layer takes.
        outputs: the outputs z.
        signed: whether an input may be negative; False saves operations in a rule.
    """

    layer: LinearLayer
    weight: Tensor
    bias: Tensor | None
    inputs: Tensor
    outputs: Tensor
    signed: bool = True


def positive_part(forward: Forward) -> Tensor:
    r"""Return :math:`\sum_i (a_i w_{ij})^+ + b_j^+` for each output j, in the outputs' shape.

    Example:
        >>> a, w = torch.tensor([[3.0, 2.0, -1.0]]), torch.tensor([[2.0, -1.0, -2.0]])
        >>> positive_part(Forward(Dense(), w, torch.ones(1), a, torch.tensor([[7.0]]))).tolist()
        [[9.0]]
    """
    bias = None if forward.bias is None else forward.bias.clamp(min=0)
    weight, inputs = forward.weight, forward.inputs
    if not forward.signed:
        return forward.layer(inputs, weight.clamp(min=0), bias)
    return forward.layer(inputs.clamp(min=0), weight.clamp(min=0), bias) + forward.layer(
        inputs.clamp(max=0), weight.clamp(max=0)
    )
