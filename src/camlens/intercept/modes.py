"""Function modes: what a run may intercept of a model's calls, on its own thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Interception(TorchFunctionMode):
    """A function mode that lets calls through, and that can be switched off for good.

    Attributes:
        create_graph: whether gradients are to be differentiated in turn. Attention is then
            computed by its definition, since fused kernels have no second derivative.
        live: whether calls are intercepted. Set to False the mode does nothing, even if an
            interrupt left it entered; :meth:`discard_dead` takes it off.
        suspended: whether calls pass for the moment, while a nested run is under way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.create_graph = False
        self.live = True
        self.suspended = False

    def check_used(self) -> None:
        """Check, after a run, that what the mode is for has happened."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Let the call through, but for fused attention that is to be differentiated twice."""
        kwargs = kwargs or {}
        if self.create_graph and self.live and not self.suspended:
            name = getattr(func, "__name__", "").partition(".")[0]
            if name == "scaled_dot_product_attention":
                return _attention(*args, **kwargs)
            if name == "multi_head_attention_forward":
                # What it calls is not seen here; it uses no fused kernel where weights are wanted.
                output, weights = func(*args, **{**kwargs, "need_weights": True})
                return output, weights if kwargs.get("need_weights", True) else None
        return func(*args, **kwargs)

    @staticmethod
    def discard_dead() -> None:
        """Take off modes of this thread that an interrupt left entered."""
        while (depth := torch._C._len_torch_function_stack()) > 0:
            mode = torch._C._get_function_stack_at(depth - 1)
            if not isinstance(mode, Interception) or mode.live:
                return
            torch._C._pop_torch_function_stack()


class UnbrokenGradients(Interception):
    """Record gradients also where the model switches them off, as a frozen backbone does."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Let every call through but those that switch gradients off."""
        if self.live and func is torch._C._set_grad_enabled and not args[0]:
            return None
        return func(*args, **(kwargs or {}))


def _attention(  # noqa: PLR0917  the signature of the function that it stands for
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> Tensor:
    outputs: tuple[Tensor, Tensor] = torch.ops.aten._scaled_dot_product_attention_math(
        query, key, value, attn_mask, dropout_p, is_causal, **options
    )
    return outputs[0]
