"""Base class of function modes, which intercept a model's calls on one thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, final

import torch
from torch.overrides import TorchFunctionMode

from .attention_by_definition import FUSED, MODULE, attention_arguments, scaled_dot_product

_T = TypeVar("_T")


class Interception(TorchFunctionMode):
    """Base class of function modes: executes every call unchanged, and can be disabled for good.

    A subclass that replaces calls overrides :meth:`intercept`.

    Attributes:
        create_graph: whether gradients will be differentiated again. Attention is then computed
            from its definition, since fused kernels have no second derivative.
        live: whether calls are intercepted. Once it is False the mode does nothing, even if an
            interrupt left it active; :meth:`discard_dead` removes it.
        suspended: whether interception is paused during a nested run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.create_graph = False
        self.live = True
        self.suspended = False

    def check_used(self) -> None:
        """Check after a run that the model made the calls that this mode handles."""

    def intercept(
        self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Execute a call of the model, or the call that replaces it, and return its result."""
        if self.create_graph:
            name = getattr(func, "__name__", "").partition(".")[0]
            if name == FUSED:
                return scaled_dot_product(attention_arguments(name, args, kwargs))
            if name == MODULE:
                # The calls inside it are not intercepted. It uses no fused kernel if it must return
                # its weights.
                output, weights = func(*args, **{**kwargs, "need_weights": True})
                return output, weights if kwargs.get("need_weights", True) else None
        return func(*args, **kwargs)

    @final
    def intercepting(self, work: Callable[[], _T]) -> _T:
        """Call ``work`` from within :meth:`intercept`, intercepting its calls too.

        ``with self`` is not enough: torch removes a mode while it executes a call, and an interrupt
        at that moment would leave the stack of modes wrong.
        """
        depth = torch._C._len_torch_function_stack()
        torch.overrides._push_mode(self)
        try:
            return work()
        finally:
            while torch._C._len_torch_function_stack() > depth:
                torch.overrides._pop_mode()

    @final
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Intercept a call, unless the mode is disabled."""
        kwargs = kwargs or {}
        if not self.live or self.suspended:
            return func(*args, **kwargs)
        return self.intercept(func, args, kwargs)

    @staticmethod
    def discard_dead() -> None:
        """Remove the modes that an interrupt left active on this thread."""
        while (depth := torch._C._len_torch_function_stack()) > 0:
            mode = torch._C._get_function_stack_at(depth - 1)
            if not isinstance(mode, Interception) or mode.live:
                return
            torch._C._pop_torch_function_stack()


def check_no_checkpoint(what: str) -> None:
    """Check that the current call is not inside a ``torch.utils.checkpoint``.

    A checkpoint recomputes activations in the backward pass, when the mode is no longer active, so
    it would run the original calls instead of the replaced ones.

    Args:
        what: the replaced computation, for the error message, such as ``"LRP's rules"``.

    Raises:
        ValueError: the call is inside a checkpoint, or other hooks change saved tensors.
    """
    try:
        with torch.autograd.graph.disable_saved_tensors_hooks("a checkpoint"):
            return
    except RuntimeError as error:
        raise ValueError(
            f"{what} cannot be used within torch.utils.checkpoint or other hooks on saved tensors, "
            "which recompute activations without them: switch gradient checkpointing off while you "
            "explain, as with model.gradient_checkpointing_disable() or "
            "model.set_grad_checkpointing(False)"
        ) from error


class UnbrokenGradients(Interception):
    """Function mode that records gradients even where the model switches them off."""

    def intercept(
        self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Skip calls that switch gradients off, such as those of a frozen backbone."""
        if func is torch._C._set_grad_enabled and not args[0]:
            return None
        return func(*args, **kwargs)
