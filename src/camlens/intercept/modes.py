"""Function modes: see a model's calls as they are made, on one thread, and replace some."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, final

import torch
from torch.overrides import TorchFunctionMode

from .attention_by_definition import FUSED, MODULE, attention_arguments, scaled_dot_product

_T = TypeVar("_T")


class Interception(TorchFunctionMode):
    """A function mode that lets every call through, and that can be switched off for good.

    A mode that replaces calls is a subclass that overrides :meth:`intercept`.

    Attributes:
        create_graph: whether gradients are to be differentiated in turn. Attention is then
            computed by its definition, since fused kernels have no second derivative.
        live: whether calls are intercepted. Once it is False the mode does nothing, even if an
            interrupt left it entered; :meth:`discard_dead` removes it.
        suspended: whether calls pass through for the moment, while a nested run is under way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.create_graph = False
        self.live = True
        self.suspended = False

    def check_used(self) -> None:
        """Check, after a run, that the calls this mode is for were made."""

    def intercept(
        self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Make one call of the model's, or the call that replaces it, and return its result."""
        if self.create_graph:
            name = getattr(func, "__name__", "").partition(".")[0]
            if name == FUSED:
                return scaled_dot_product(attention_arguments(name, args, kwargs))
            if name == MODULE:
                # The calls inside are not seen here. It uses no fused kernel if it has to return
                # its weights.
                output, weights = func(*args, **{**kwargs, "need_weights": True})
                return output, weights if kwargs.get("need_weights", True) else None
        return func(*args, **kwargs)

    @final
    def intercepting(self, work: Callable[[], _T]) -> _T:
        """Call ``work`` from :meth:`intercept`, with its calls intercepted in turn.

        ``with self`` would not do: torch takes a mode off while it makes a call, and an interrupt
        at that moment would leave none to remove.
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
        """Intercept a call, unless the mode is switched off."""
        kwargs = kwargs or {}
        if not self.live or self.suspended:
            return func(*args, **kwargs)
        return self.intercept(func, args, kwargs)

    @staticmethod
    def discard_dead() -> None:
        """Remove the modes that an interrupt left entered on this thread."""
        while (depth := torch._C._len_torch_function_stack()) > 0:
            mode = torch._C._get_function_stack_at(depth - 1)
            if not isinstance(mode, Interception) or mode.live:
                return
            torch._C._pop_torch_function_stack()


def check_no_checkpoint(what: str) -> None:
    """Check that the model does not recompute what it computes now.

    A backward pass runs after the mode is off, so what a checkpoint recomputes then is the model's
    own computation, without what has replaced parts of it.

    Args:
        what: what is replaced, for the error: ``"LRP's rules"``.

    Raises:
        ValueError: it does, in a ``torch.utils.checkpoint``, or tensors that are saved for the
            backward pass are changed by hooks of another kind.
    """
    try:
        with torch.autograd.graph.disable_saved_tensors_hooks("a checkpoint"):
            return
    except RuntimeError as error:
        raise ValueError(
            f"{what} cannot be used within torch.utils.checkpoint or other hooks on saved tensors, "
            "which recompute the model's activations without them: switch gradient checkpointing "
            "off while you explain, such as by model.gradient_checkpointing_disable() or "
            "model.set_grad_checkpointing(False)"
        ) from error


class UnbrokenGradients(Interception):
    """Record gradients even where the model switches them off, as a frozen backbone does."""

    def intercept(
        self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Skip the calls that switch gradients off."""
        if func is torch._C._set_grad_enabled and not args[0]:
            return None
        return func(*args, **kwargs)
