"""Hooks that capture layers' outputs, and start or join the autograd graph there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..model import is_exported


class Capture:
    """Captures layers' outputs and, with ``record``, starts or joins the autograd graph there."""

    def __init__(self, *, record: bool) -> None:
        self.record = record
        self.captured: dict[str, Tensor] = {}
        #: Whether the model switched gradients off again between two captured layers.
        self.interrupted = False

    def __call__(self, name: str, inputs: tuple[Any, ...], output: Any) -> Any:
        """Capture a layer's output, and return a copy that the model continues with."""
        tensor = first_tensor(output)
        if tensor is None and _in_vmap(output):
            raise ValueError(
                f"layer {name!r} runs inside torch.vmap, where camlens cannot capture its output: "
                "name a layer outside of it, write the model's forward without vmap, or use a "
                "method that needs no layer, such as camlens.IntegratedGradients"
            )
        if tensor is None:
            raise TypeError(
                f"layer {name!r} gives {_kind(output)}: expected a floating-point tensor, or a "
                "tuple that starts with one (which is then explained); name a layer inside this one"
            )
        if not self.record:
            self.captured[name] = tensor.detach().clone()
            return None
        self.interrupted |= bool(self.captured) and not torch.is_grad_enabled()
        # An identity or in-place layer returns its input, which other code may write to.
        if any(_shares_memory(tensor, x) for x in inputs):
            tensor = tensor.clone()
        if tensor.requires_grad:
            # A view, not the layer's own tensor: other uses of that tensor (as the input of an
            # identity, or as a second output) are not uses of the layer's output.
            captured = tensor.view_as(tensor)
        else:
            captured = tensor.detach().requires_grad_()
            torch.set_grad_enabled(True)
        self.captured[name] = captured
        # A copy, so that a later in-place operation cannot change the captured tensor.
        return replace_first(output, captured.clone())

    def check_ran(self, names: Sequence[str], model: nn.Module) -> None:
        """Check that every layer ran.

        Raises:
            LookupError: a layer did not run.
        """
        missing = [name for name in names if name not in self.captured]
        if not missing:
            return
        if is_exported(model):
            raise LookupError(
                f"the layers {missing} did not run: this model is an exported program, whose graph "
                "does not call its submodules; explain the original model, or "
                "torch.export.unflatten(program)"
            )
        raise LookupError(
            f"the layers {missing} did not run in this forward pass: name layers that the "
            "model's forward calls (camlens.find_layers(model, images) lists them)"
        )


class Replacement(Capture):
    """Replaces a layer's output with another tensor, at which the autograd graph may start.

    Args:
        value: tensor in the shape of the layer's output, except for the number of rows.
        record: whether the autograd graph starts at it.
        batch: dimension of the rows.
    """

    def __init__(self, value: Tensor, *, record: bool, batch: int = 0) -> None:
        super().__init__(record=record)
        self.value = value
        self.batch = batch

    def __call__(self, name: str, inputs: tuple[Any, ...], output: Any) -> Any:
        """Return the layer's output with its tensor replaced."""
        tensor = first_tensor(output)
        expected = self._row(self.value), self.value.dtype
        if tensor is None or (self._row(tensor), tensor.dtype) != expected:
            got = _kind(output) if tensor is None else f"{tuple(tensor.shape)} of {tensor.dtype}"
            raise ValueError(
                f"layer {name!r} gives {got}, expected (rows, *{expected[0]}) of "
                f"{expected[1]} as for the unchanged images"
            )
        captured = self.value.detach()
        if self.record:
            captured = captured.clone().requires_grad_()
            torch.set_grad_enabled(True)
        self.captured[name] = captured
        return replace_first(output, captured.clone())

    def _row(self, tensor: Tensor) -> tuple[int, ...]:
        """Return the shape without the dimension of the rows."""
        shape = tuple(tensor.shape)
        return shape[: self.batch] + shape[self.batch + 1 :]


class Severed(Capture):
    """Captures layers' outputs with their graphs, and passes on detached copies.

    The graphs of several layers are then disjoint; each starts where a function mode starts it.
    """

    def __init__(self) -> None:
        super().__init__(record=False)

    def __call__(self, name: str, inputs: tuple[Any, ...], output: Any) -> Any:
        """Capture a layer's output, and stop recording gradients until a new graph starts."""
        tensor = first_tensor(output)
        if tensor is None:
            raise TypeError(f"layer {name!r} gives {_kind(output)}: expected a tensor")
        torch.set_grad_enabled(False)
        self.captured[name] = tensor
        return replace_first(output, tensor.detach().clone())


def first_tensor(output: Any) -> Tensor | None:
    """Return an output, or the first element of a tuple, if it is a floating-point tensor.

    A tensor inside ``torch.vmap`` does not count, as it is invalid after the call.
    """
    first = _first(output)
    floating = isinstance(first, Tensor) and first.is_floating_point()
    return first if floating and not _in_vmap(output) else None


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, (tuple, list)) and output else output


def _in_vmap(output: Any) -> bool:
    first = _first(output)
    return isinstance(first, Tensor) and torch._C._functorch.is_batchedtensor(first)


def replace_first(output: Any, tensor: Tensor) -> Any:
    """Return a layer's output with the tensor of :func:`first_tensor` replaced."""
    if isinstance(output, Tensor):
        return tensor
    rest = (tensor, *output[1:])
    return type(output)(*rest) if hasattr(output, "_fields") else type(output)(rest)


def _shares_memory(tensor: Tensor, other: object) -> bool:
    return (
        isinstance(other, Tensor)
        and tensor.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
    )


def _kind(output: Any) -> str:
    if isinstance(output, Tensor) and output.is_quantized:
        return f"a quantized tensor ({output.dtype}), which has no gradients"
    return str(output.dtype) if isinstance(output, Tensor) else type(output).__name__
