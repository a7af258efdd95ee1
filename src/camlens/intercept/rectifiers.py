"""Replaces the backward rule of ReLUs, whether modules, functions or methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .modes import Interception

#: (gradient, output) -> gradient, such as :func:`camlens.methods.gradient.guided_rule`.
Rule = Callable[[Tensor, Tensor], Tensor]

#: Activations for which no published rule defines guided backprop or deconvnet.
UNRULED = frozenset(
    [
        *("leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "glu"),
        *("hardswish", "hardtanh", "threshold", "softplus", "log_sigmoid", "softsign"),
        *("softshrink", "hardshrink", "tanhshrink"),
    ]
)


class BackwardRule(Interception):
    """Function mode that replaces the backward rule of every ReLU that runs within it.

    It replaces ReLUs in all forms (``nn.ReLU``, ``F.relu``, ``x.relu_()``, ``x.clamp(min=0)``,
    ReLU6) as they are called, on this thread only. The backward pass reads the rule when it runs,
    so one forward pass can serve several backward passes with different rules.

    Other arithmetic that is equivalent to a ReLU, such as ``torch.maximum(x, zero)``, is not
    replaced, and neither are calls inside a scripted module.

    Attributes:
        rule: (gradient, output) -> gradient, one of the rules of :mod:`camlens.methods.gradient`.
        count: number of ReLUs that have run.

    Raises:
        ValueError: an activation ran for which no rule is defined (:data:`UNRULED`).

    Example:
        >>> from camlens.methods.gradient import deconvnet_rule
        >>> x = torch.tensor([-1.0, 1.0], requires_grad=True)
        >>> with BackwardRule(deconvnet_rule):
        ...     y = x.relu()
        >>> torch.autograd.grad(y.sum(), x)[0].tolist()
        [1.0, 1.0]
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule
        self.count = 0

    def check_used(self) -> None:
        """Check that the model has ReLUs, without which the gradient would be the plain one.

        Raises:
            ValueError: no ReLU ran.
        """
        if self.count == 0:
            raise ValueError(
                "no ReLU ran: without one, guided backprop and deconvnet give the plain gradient, "
                "so use camlens.Saliency. camlens does not see ReLUs that are inside a scripted "
                "module or written differently, such as torch.maximum(x, zero)"
            )

    def intercept(
        self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Replace calls of ReLUs; execute other calls unchanged."""
        spelled = getattr(func, "__name__", "").partition(".")[0]  # "relu.default", if exported
        name = spelled.strip("_")
        if name not in _ARGUMENTS:
            if name in UNRULED:
                raise ValueError(_unruled(name))
            return super().intercept(func, args, kwargs)
        arguments = {**dict(zip(_ARGUMENTS[name], args, strict=False)), **kwargs}
        bounds = _BOUNDS[name](arguments)
        if bounds is None:
            return super().intercept(func, args, kwargs)
        if bounds[0] != 0:
            raise ValueError(_unruled(name))
        self.count += 1
        inplace = spelled.endswith("_") or bool(arguments.get("inplace", False))
        return _Rectifier.apply(arguments["input"], bounds[1], inplace, self)


def _unruled(name: str) -> str:
    return (
        "guided backprop and deconvnet are defined for ReLU and ReLU6; this model also uses "
        f"{name}. Use camlens.Saliency, or a class activation map"
    )


def _clamp_bounds(arguments: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return (0, ceiling) if a clamp is a ReLU, or None for any other clamp."""
    low, high = arguments.get("min"), arguments.get("max")
    if not arguments["input"].is_floating_point():
        return None  # indices, not activations
    if isinstance(low, (int, float)) and low == 0 and isinstance(high, (int, float, type(None))):
        return 0.0, float("inf") if high is None else float(high)
    return None


_ARGUMENTS = {
    "relu": ("input", "inplace"),
    "relu6": ("input", "inplace"),
    "hardtanh": ("input", "min_val", "max_val", "inplace"),
    "clamp": ("input", "min", "max"),
    "clip": ("input", "min", "max"),
    "clamp_min": ("input", "min"),
}

#: Maps a call's arguments to the lower and upper bound of the ReLU; None if it is not one.
_BOUNDS: dict[str, Callable[[Mapping[str, Any]], tuple[float, float] | None]] = {
    "relu": lambda _: (0.0, float("inf")),
    "relu6": lambda _: (0.0, 6.0),
    "hardtanh": lambda given: (given.get("min_val", -1.0), given.get("max_val", 1.0)),
    "clamp": _clamp_bounds,
    "clip": _clamp_bounds,
    "clamp_min": _clamp_bounds,
}


class _Rectifier(torch.autograd.Function):
    """min(max(x, 0), ceiling), with ``BackwardRule.rule`` as its derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ceiling: float, inplace: bool, mode: BackwardRule) -> Tensor:
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
        if ctx.ceiling != float("inf"):
            y = y.where(y < ctx.ceiling, 0)  # at the ceiling a unit counts as not active
        return ctx.mode.rule(grads[0], y), None, None, None
