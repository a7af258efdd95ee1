"""Reaching into a running model: hooks on layers, and another backward rule for ReLU.

This is the only file that registers hooks or intercepts calls. Everything is a context
manager, removes what it added however the block ends, and acts on the calling thread alone,
so that several threads can share a model.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from . import modules
from .derivatives import derivatives

Rule = Callable[[Tensor, Tensor], Tensor]


class Taps:
    """What :func:`tap` captured in one forward pass.

    Attributes:
        activations: by layer name, the output of each tapped layer that has run; of a layer
            that runs several times, the output of its last call.
    """

    def __init__(self, layers: Sequence[str]) -> None:
        self.layers = tuple(layers)
        self.activations: dict[str, Tensor] = {}

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
    behind it (torchvision's VGG has an in-place ReLU) cannot change what was captured.

    Neither the model nor the global grad mode is left changed, and the block works inside
    ``torch.no_grad()`` and ``torch.inference_mode()``. Run one forward pass in it.

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

    def capture(name: str, output: Any) -> Any:
        tensor = tensor_of(output)
        if tensor is None:
            raise TypeError(
                f"layer {name!r} gives {type(output).__name__}: expected a floating-point tensor, "
                "or a tuple that begins with one; name a layer inside it"
            )
        if not gradients:
            taps.activations[name] = tensor.detach().clone()
            return None
        if not tensor.requires_grad:
            tensor = tensor.detach().requires_grad_()
            torch.set_grad_enabled(True)
        taps.activations[name] = tensor
        return _replace(output, tensor.clone())

    with torch.inference_mode(False), torch.no_grad(), watch(model, taps.layers, capture):
        yield taps
    taps.outputs()


@contextlib.contextmanager
def watch(
    model: nn.Module, names: Sequence[str], seen: Callable[[str, Any], Any]
) -> Iterator[None]:
    """Call ``seen(name, output)`` after each run of a layer on this thread.

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
    thread = threading.get_ident()
    handles: list[RemovableHandle] = []

    def hook_for(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        # The hook sits on a module that other threads may be running at the same time.
        return lambda _, __, out: seen(name, out) if threading.get_ident() == thread else None

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


def _replace(output: Any, tensor: Tensor) -> Any:
    if isinstance(output, Tensor):
        return tensor
    rest = (tensor, *output[1:])
    return type(output)(*rest) if hasattr(output, "_fields") else type(output)(rest)


#: Activations for which no published rule says what "guided" means.
UNRULED = frozenset(
    [
        *("leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish"),
        *("hardswish", "hardtanh", "threshold", "softplus", "logsigmoid", "glu"),
    ]
)


class rectifiers(TorchFunctionMode):  # noqa: N801  a context manager, named as it is used
    """Give every ReLU of the block a backward rule of its own, without touching the model.

    It meets every spelling (``nn.ReLU``, ``F.relu``, ``x.relu_()``, ReLU6) as the call is made,
    on this thread only. The rule is looked up when the backward pass runs: one forward pass
    can serve several backward passes with different rules.

    ``torch.clamp(x, min=0)`` and other arithmetic that amounts to a ReLU is not met, nor is
    what runs inside a scripted module.

    Attributes:
        rule: (gradient, active) -> gradient, one of :mod:`camlens.methods.gradient`'s rules.
        count: how many rectifiers have run.

    Raises:
        ValueError: the block runs an activation for which no rule is defined (:data:`UNRULED`),
            or ends without having run a ReLU.

    Example:
        >>> from camlens.methods.gradient import deconvnet_rule
        >>> x = torch.tensor([-1.0, 1.0], requires_grad=True)
        >>> with rectifiers(deconvnet_rule):
        ...     y = x.relu()
        >>> torch.autograd.grad(y.sum(), x)[0].tolist()
        [1.0, 1.0]
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule
        self.count = 0

    def __exit__(self, *raised: Any) -> None:
        """Leave the mode, and do not let a model without a ReLU pass for a guided one."""
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        if self.count == 0 and raised[0] is None:
            raise ValueError(
                "no ReLU ran: guided backprop and deconvnet change how gradients pass a ReLU, and "
                "are the plain gradient without one. Use camlens.InputGradient; if the model does "
                "have ReLUs, they are hidden in a scripted module or spelled clamp(min=0)"
            )

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace a rectifier's call; let every other call through."""
        kwargs = kwargs or {}
        spelled = getattr(func, "__name__", "")
        name = spelled.rstrip("_")
        if name not in _ARGUMENTS and name not in UNRULED:
            return func(*args, **kwargs)
        given = {**dict(zip(_ARGUMENTS.get(name, ()), args, strict=False)), **kwargs}
        ceiling = {"relu": float("inf"), "relu6": 6.0}.get(name, given.get("max_val", 1.0))
        if name in UNRULED and (name != "hardtanh" or given.get("min_val", -1.0) != 0):
            raise ValueError(
                f"guided backprop and deconvnet are defined for ReLU and ReLU6; this model also "
                f"uses {name}. Use camlens.InputGradient, or a class activation map"
            )
        self.count += 1
        inplace = spelled.endswith("_") or bool(given.get("inplace", False))
        return _Rectifier.apply(given["input"], ceiling, inplace, self)


_ARGUMENTS = {
    "relu": ("input", "inplace"),
    "relu6": ("input", "inplace"),
    "hardtanh": ("input", "min_val", "max_val", "inplace"),
}


class _Rectifier(torch.autograd.Function):
    """min(max(x, 0), ceiling), whose derivative is left to ``rectifiers.rule``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ceiling: float, inplace: bool, mode: rectifiers) -> Tensor:
        if ceiling == float("inf"):
            y = x.relu_() if inplace else x.relu()
        else:
            y = x.clamp_(0, ceiling) if inplace else x.clamp(0, ceiling)
        if inplace:
            ctx.mark_dirty(x)
        ctx.save_for_backward(y)
        ctx.ceiling, ctx.mode = ceiling, mode
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (y,) = ctx.saved_tensors
        active = y > 0
        if ctx.ceiling != float("inf"):
            active = active & (y < ctx.ceiling)
        return ctx.mode.rule(grads[0], active), None, None, None
