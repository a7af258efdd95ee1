"""Functions of autograd whose backward passes share out relevance."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import torch
from torch import Tensor

from .linear_maps import Convolution, Dense, Scale


class LinearRule(Protocol):
    """A rule of :mod:`camlens.methods.relevance`."""

    def prepare(self, forward: Any) -> tuple[Tensor, ...]:
        """Return what the backward pass needs."""

    def propagate(
        self, layer: Any, weight: Tensor, gradient: Tensor, kept: tuple[Tensor, ...]
    ) -> Tensor:
        """Return the modified gradient by the inputs."""


@dataclasses.dataclass(frozen=True, eq=False)
class LayerCall:
    """A layer's call, which a rule's ``prepare`` takes.

    Attributes:
        layer: what is linear in its inputs.
        weight: of the layer, with that of a BatchNorm behind it.
        bias: likewise; or None.
        inputs: as they were when their version was ``version``.
        outputs: of the layer.
        version: of the inputs.
        rule: how relevance passes it.
        signed: whether an input may be negative.
        first: whether it sees the image itself, and passes relevance, not gradients.
    """

    layer: Dense | Convolution | Scale
    weight: Tensor
    bias: Tensor | None
    inputs: Tensor
    outputs: Tensor
    version: int
    rule: LinearRule
    signed: bool
    first: bool


class Prepared:
    """What a rule keeps of a call, once it is known that nothing is to be merged into the layer."""

    def __init__(self, call: LayerCall) -> None:
        self.layer, self.weight = call.layer, call.weight
        self.rule, self.first = call.rule, call.first
        self.kept: tuple[Tensor, ...] | None = None

    def finish(self, call: LayerCall) -> None:
        """Let the rule prepare, before the outputs may be overwritten."""
        if self.kept is None:
            with torch.no_grad():
                self.kept = tuple(self.rule.prepare(call))


class Affine(torch.autograd.Function):
    """A layer that is linear but for a bias, with the backward pass of a rule."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, outputs: tuple[Tensor], prepared: Prepared) -> Tensor:
        """Return the outputs, which were computed before."""
        ctx.prepared, ctx.first = prepared, prepared.first
        return outputs[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Return the modified gradient by the inputs."""
        held = ctx.prepared
        if held.kept is None:
            raise ValueError(
                "a layer's output is used beside its BatchNorm by a call that is not seen, as in "
                "a scripted module, so that relevance cannot pass it"
            )
        found = held.rule.propagate(held.layer, held.weight, gradients[0], held.kept)
        return found, None, None


class Ratio(torch.autograd.Function):
    """An activation that passes relevance as it is: its gradient is f(x) / x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, made: tuple[Tensor], at_zero: float, inplace: bool) -> Tensor:
        """Return y, which was computed before, or x overwritten by it."""
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
    """The identity, whose gradient is half: each of two factors has half of the relevance."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return the same tensor, or a copy of one that is a part of another."""
        if x._is_view():
            return x.clone()
        ctx.mark_dirty(x)  # so that it may be overwritten, and no copy is needed
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return half of the gradient."""
        return gradients[0] / 2


def halved(product: Tensor) -> Tensor:
    """Return a product of two results that shares its relevance out between them in halves.

    Example:
        >>> a = torch.tensor([3.0], requires_grad=True)
        >>> b = torch.tensor([5.0], requires_grad=True)
        >>> halved(a * b).backward()
        >>> (a * a.grad).item(), (b * b.grad).item()
        (7.5, 7.5)
    """
    result: Tensor = Halved.apply(product)
    return result
