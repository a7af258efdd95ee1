"""Reaching into a running model: hooks on layers.

This is the only file that registers hooks. Everything is a context manager, removes what it
added however the block ends, and acts on the calling thread alone, so that several threads can
share a model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from . import modules
from .derivatives import derivatives


class Taps:
    """What :func:`tap` captured in one forward pass.

    Attributes:
        activations: by layer name, the output of each tapped layer that has run; of a layer
            that runs several times, the output of its last call; of one that returns several
            tensors, the first.
        interrupted: whether the model itself switched gradients off again on the way from one
            tapped layer to the next.
    """

    def __init__(self, layers: Sequence[str]) -> None:
        self.layers = tuple(layers)
        self.activations: dict[str, Tensor] = {}
        self.interrupted = False

    def outputs(self) -> list[Tensor]:
        """Return the activations in the order in which the layers were named.

        Raises:
            LookupError: a layer did not run.
        """
        if missing := [name for name in self.layers if name not in self.activations]:
            raise LookupError(
                f"the layers {missing} did not run in this forward pass: name layers that the "
                "model's forward calls (camlens.find_layers(model, images) lists them)"
            )
        return [self.activations[name] for name in self.layers]

    def gradients(self, scores: Tensor) -> dict[str, Tensor]:
        """Return the derivatives of scores by every tapped layer's output.

        Args:
            scores: (N,) or (N, K), computed from the model's output inside the ``with`` block
                of ``tap(..., gradients=True)``. Score n is taken to depend on image n alone.

        Returns:
            By layer name, a tensor of ``scores.shape`` + the activation's shape without its
            first dimension. K scores cost one forward pass.

        Raises:
            LookupError: a layer did not run.
            ValueError: the scores do not depend on a tapped layer, or no gradients were
                requested.
        """
        rows = scores if scores.ndim == 2 else scores.unsqueeze(1)
        grads = derivatives(rows, self.outputs(), names=self.layers, keep_graph=True)
        shaped = [g.reshape(*scores.shape, *g.shape[2:]) for g in grads]
        return dict(zip(self.layers, shaped, strict=True))


@contextlib.contextmanager
def tap(
    model: nn.Module,
    layers: str | nn.Module | Sequence[str | nn.Module],
    *,
    gradients: bool = False,
) -> Iterator[Taps]:
    """Capture the outputs of layers, and on request their gradients, while the block runs.

    With ``gradients=True`` the model runs without building a graph up to the first tapped
    layer; from there on gradients are recorded, so that a backward pass costs no more than the
    part behind the layer. The model gets a copy of the captured output: an in-place operation
    behind it (torchvision's VGG has an in-place ReLU) cannot change what was captured. A layer
    stands for what it returns: a model that writes in place and then goes on with the input
    passes it by.

    Neither the model nor the global grad mode is left changed, and the block works inside
    ``torch.no_grad()`` and ``torch.inference_mode()``. Run one forward pass in it; under
    ``torch.enable_grad()`` if the model runs a part of itself under ``no_grad``.

    Args:
        model: any module; compiled and (distributed) data parallel ones are unwrapped.
        layers: dotted names or modules.
        gradients: whether :meth:`Taps.gradients` will be called.

    Raises:
        LookupError: the model has no such layer, or (when the block ends) one did not run.
        TypeError: a layer's output holds no floating-point tensor.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
        >>> with tap(net.eval(), "1", gradients=True) as taps:
        ...     logits = net(torch.rand(5, 1, 4, 4))
        ...     gradient = taps.gradients(logits)["1"]
        >>> taps.activations["1"].shape, gradient.shape
        (torch.Size([5, 2, 2, 2]), torch.Size([5, 3, 2, 2, 2]))
    """
    taps = Taps(modules.resolve_all(modules.unwrap(model), layers))

    def capture(name: str, inputs: tuple[Any, ...], output: Any) -> Any:
        tensor = tensor_of(output)
        if tensor is None:
            raise TypeError(
                f"layer {name!r} gives {type(output).__name__}: expected a floating-point tensor, "
                "or a tuple that begins with one, which is then explained; name a layer inside it"
            )
        if not gradients:
            taps.activations[name] = tensor.detach().clone()
            return None
        taps.interrupted |= bool(taps.activations) and not torch.is_grad_enabled()
        if not tensor.requires_grad:
            # An identity or in-place layer returns its input, to which others may write.
            shared = any(_shares_memory(tensor, x) for x in inputs)
            tensor = (tensor.detach().clone() if shared else tensor.detach()).requires_grad_()
            torch.set_grad_enabled(True)
        taps.activations[name] = tensor
        return _replace(output, tensor.clone())

    with torch.inference_mode(False), torch.no_grad(), watch(model, taps.layers, capture):
        yield taps
    taps.outputs()


@contextlib.contextmanager
def watch(
    model: nn.Module, names: Sequence[str], seen: Callable[[str, tuple[Any, ...], Any], Any]
) -> Iterator[None]:
    """Call ``seen(name, inputs, output)`` after each run of a layer on this thread.

    What ``seen`` returns replaces the output, unless it is None.

    Raises:
        ValueError: a layer is a TorchScript module.
    """
    model = modules.unwrap(model)
    everything = modules.named(model)
    if scripted := [n for n in names if isinstance(everything[n], torch.jit.ScriptModule)]:
        raise ValueError(
            f"the layers {scripted} are TorchScript modules, which take no hooks: use the model "
            "as it was before torch.jit.script or torch.jit.trace"
        )
    thread = get_ident()
    handles: list[RemovableHandle] = []

    def hook_for(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        # The hook sits on a module that other threads may be running at the same time.
        return lambda _, args, out: seen(name, args, out) if get_ident() == thread else None

    with modules.eager(model):
        try:
            for name in names:
                handles.append(everything[name].register_forward_hook(hook_for(name)))
            yield
        finally:
            for handle in handles:
                handle.remove()


def tensor_of(output: Any) -> Tensor | None:
    """Return a layer's output if it is a floating-point tensor, or a tuple's first if it is one."""
    first = output[0] if isinstance(output, (tuple, list)) and output else output
    return first if isinstance(first, Tensor) and first.is_floating_point() else None


def _shares_memory(tensor: Tensor, other: object) -> bool:
    return (
        isinstance(other, Tensor)
        and tensor.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
    )


def _replace(output: Any, tensor: Tensor) -> Any:
    if isinstance(output, Tensor):
        return tensor
    rest = (tensor, *output[1:])
    return type(output)(*rest) if hasattr(output, "_fields") else type(output)(rest)
