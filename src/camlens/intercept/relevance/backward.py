"""Autograd functions whose backward passes propagate relevance."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from ...methods.linear_layers import Forward
from ...methods.relevance import Rule


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class LayerCall(Forward):
    """A call of a linear layer. Its weights and bias include those of a BatchNorm that follows.

    Attributes:
        version: the version of the input tensor when the layer ran; in-place changes raise it.
        rule: the layer's relevance rule.
        first: whether it receives the images themselves; it then returns relevance, not gradients.
    """

    version: int
    rule: Rule
    first: bool


class Prepared:
    """The tensors that a rule keeps from a layer's call for the backward pass.

    :meth:`finish` computes them, once it is known whether a BatchNorm follows the layer.
    """

    def __init__(self, call: LayerCall) -> None:
        self.layer, self.weight = call.layer, call.weight
        self.rule, self.first = call.rule, call.first
        self.kept: tuple[Tensor, ...] | None = None

    def finish(self, call: LayerCall) -> None:
        """Compute the tensors, before the model may overwrite the outputs."""
        if self.kept is None:
            with torch.no_grad():
                self.kept = tuple(self.rule.prepare(call))


class Affine(torch.autograd.Function):
    """A linear layer with the backward pass of a rule."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, outputs: tuple[Tensor], prepared: Prepared) -> Tensor:
        """Return the outputs, which the caller has computed."""
        ctx.prepared, ctx.first = prepared, prepared.first
        return outputs[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Return the modified gradient of the inputs."""
        held = ctx.prepared
        if held.kept is None:
            raise ValueError(
                "a layer's output is used by its BatchNorm and also by a call that camlens cannot "
                "see, as in a scripted module, so relevance cannot pass through it"
            )
        found = held.rule.propagate(held.layer, held.weight, gradients[0], held.kept)
        return found, None, None


class Activation(torch.autograd.Function):
    """An activation f that passes relevance unchanged: its gradient is f(x) / x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, made: tuple[Tensor], at_zero: float, inplace: bool) -> Tensor:
        """Return y, which the caller has computed; if in place, x overwritten by y."""
        (y,) = made
        ctx.save_for_backward(torch.where(x == 0, at_zero, y / x).to(y.dtype))
        if not inplace:
            return y
        ctx.mark_dirty(x)
        return x.copy_(y)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient times f(x) / x."""
        return gradients[0] * ctx.saved_tensors[0], None, None, None


class Halved(torch.autograd.Function):
    """The identity with half the gradient, so that two factors get half of the relevance each."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return the same tensor, or a copy if it is a view."""
        if x._is_view():
            return x.clone()
        ctx.mark_dirty(x)  # allows overwriting it, so that no copy is needed
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return half of the gradient."""
        return gradients[0] / 2


def halved(product: Tensor) -> Tensor:
    """Return a product whose two factors get half of its relevance each.

    Example:
        >>> a = torch.tensor([3.0], requires_grad=True)
        >>> b = torch.tensor([5.0], requires_grad=True)
        >>> halved(a * b).backward()
        >>> (a * a.grad).item(), (b * b.grad).item()
        (7.5, 7.5)
    """
    result: Tensor = Halved.apply(product)
    return result
