"""Runs a model with hooks on layers, and restores its state however the run ends.

This is the only file that registers hooks or runs a model. It restores everything that it changes
for a run (hooks, gradient mode, function modes, the compiler's stance), and affects only the
calling thread, so that several threads can share a model.
"""

from __future__ import annotations

import dataclasses
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from ..intercept import Interception
from ..model import is_training

#: Receives (layer name, positional and keyword inputs, output); its result replaces the output,
#: unless it is None.
See = Callable[[str, tuple[Any, ...], Any], Any]

#: Receives (layer name, inputs, keyword inputs) before a layer runs; its result, if it is not None,
#: replaces these inputs.
Enter = Callable[[str, tuple[Any, ...], dict[str, Any]], "_Inputs | None"]
_Inputs = tuple[tuple[Any, ...], dict[str, Any]]

_T = TypeVar("_T")


def undisturbed(work: Callable[[], _T]) -> _T:
    """Call ``work`` and restore the thread's modes afterwards, even after an interrupt."""
    before = _Thread.state()
    try:
        return work()
    finally:
        try:
            before.restore()
        except BaseException:  # an interrupt while restoring: restore again, then raise
            before.restore()
            raise


def in_evaluation(model: nn.Module, work: Callable[[], _T]) -> _T:
    """Call ``work`` with the model in evaluation mode, so that measurements do not change it.

    Only a model that trains with its maps is in training mode here, and no other thread uses it.
    """
    training = [module for module in model.modules() if is_training(module)]
    try:
        for module in training:
            module.training = False
        return work()
    finally:
        try:
            _set_training(training)
        except BaseException:  # an interrupt while restoring: restore again, then raise
            _set_training(training)
            raise


def _set_training(modules: list[nn.Module]) -> None:
    for module in modules:
        module.training = True


@dataclasses.dataclass(frozen=True)
class Call:
    """A model and the arguments to call it with."""

    model: nn.Module
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]


class _Thread(threading.local):
    """The state of this thread: the receiver and the function mode of the innermost run."""

    see: object = None
    mode: Interception | None = None

    @staticmethod
    def state() -> _State:
        Interception.discard_dead()
        return _State(torch.is_grad_enabled(), torch._C._len_torch_function_stack())


@dataclasses.dataclass(frozen=True)
class _State:
    """A thread's gradient mode and number of function modes, to restore them."""

    gradients: bool
    function_modes: int

    def restore(self) -> None:
        while torch._C._len_torch_function_stack() > self.function_modes:
            torch.overrides._pop_mode()
        torch.set_grad_enabled(self.gradients)


_thread = _Thread()


class _Hook:
    """Passes a layer's output to ``see`` while its run is the innermost one of the thread.

    It does nothing after the run, on other threads, in a nested run, in calls by a targets callable
    and in calls of the model by a user's forward hook. So a hook that an interrupt left behind does
    nothing either.
    """

    __slots__ = ("depth", "name", "see")

    def __init__(self, name: str, see: See, depth: _Depth) -> None:
        self.name = name
        self.see = see
        self.depth = depth

    def __call__(self, _: nn.Module, inputs: tuple[Any, ...], *rest: Any) -> Any:
        # Keyword inputs and the output. While the hook is being removed, other threads may call it
        # without keyword inputs.
        *keywords, output = rest
        if _thread.see is not self.see or self.depth.calls > 1:
            return None
        return self.see(self.name, (*inputs, *keywords[0].values()), output)


class _EntryHook:
    """Calls ``enter`` before a layer runs, under the conditions of :class:`_Hook`."""

    __slots__ = ("depth", "enter", "name", "see")

    def __init__(self, name: str, enter: Enter, see: See, depth: _Depth) -> None:
        self.name = name
        self.enter = enter
        self.see = see
        self.depth = depth

    @classmethod
    def put_on(
        cls,
        layers: Mapping[str, nn.Module],
        handles: list[RemovableHandle],
        *,
        enter: Enter | None,
        see: See,
        depth: _Depth,
    ) -> None:
        """Register a hook on each layer, to be removed by its handle; none if ``enter`` is None."""
        if enter is None:
            return
        for name, module in layers.items():
            keyed = module._forward_pre_hooks_with_kwargs
            handle = RemovableHandle(module._forward_pre_hooks, extra_dict=keyed)
            handles.append(handle)
            keyed[handle.id] = True
            module._forward_pre_hooks[handle.id] = cls(name, enter, see, depth)

    def __call__(
        self, _: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any] | None = None
    ) -> _Inputs | None:
        if keywords is None:  # called by another thread while the hook is being removed
            return None
        shown = _thread.see is self.see and self.depth.calls <= 1
        return self.enter(self.name, inputs, keywords) if shown else None


class _Depth:
    """Counts the nested calls of a run's model, which a user's hooks may call again."""

    __slots__ = ("calls", "see")

    def __init__(self, see: See) -> None:
        self.see = see
        self.calls = 0

    def enter(self, _: nn.Module, inputs: Any) -> None:
        self.calls += _thread.see is self.see

    def leave(self, _: nn.Module, inputs: Any, output: Any) -> None:
        self.calls -= _thread.see is self.see

    def count(self, model: nn.Module, handles: list[RemovableHandle]) -> None:
        """Start counting, until the handles are removed; calls that fail count too."""
        always = model._forward_hooks_always_called
        handles.append(before := RemovableHandle(model._forward_pre_hooks))
        handles.append(after := RemovableHandle(model._forward_hooks, extra_dict=always))
        model._forward_pre_hooks[before.id] = self.enter
        always[after.id] = True
        model._forward_hooks[after.id] = self.leave


def run_hooked(
    call: Call,
    layers: Mapping[str, nn.Module],
    see: See,
    *,
    gradients: bool,
    mode: Interception | None,
    enter: Enter | None = None,
) -> tuple[Any, bool]:
    """Run the model with hooks on layers, and restore everything even if the run is interrupted.

    An interrupt (KeyboardInterrupt, or another exception of a signal handler) can occur after any
    call. So the run ends with a plain assignment, after which hooks and rules do nothing, and the
    restoring function is called again if an interrupt hits it.
    """
    outer, outer_mode, before = _thread.see, _thread.mode, _Thread.state()
    handles: list[RemovableHandle] = []
    depth = _Depth(see)
    modules = list(call.model.modules())
    compiled = any(map(_is_compiled, modules))
    fused = any(isinstance(module, _FUSED) for module in modules)
    entered = Interception() if mode is None and fused else mode
    if entered is not None:
        entered.live = True
    try:
        if any(module._forward_hooks or module._forward_pre_hooks for module in modules):
            depth.count(call.model, handles)
        for name, module in layers.items():
            # As register_forward_hook does, but with the handle stored before the hook is active.
            keyed = module._forward_hooks_with_kwargs
            handle = RemovableHandle(module._forward_hooks, extra_dict=keyed)
            handles.append(handle)
            keyed[handle.id] = True
            module._forward_hooks[handle.id] = _Hook(name, see, depth)
        _EntryHook.put_on(layers, handles, enter=enter, see=see, depth=depth)
        if compiled:
            _uncompiled.enter(handles)
        torch.set_grad_enabled(gradients)
        if outer_mode is not None:  # a run from within a forward hook has its own rules
            outer_mode.suspended = True
        if entered is not None:
            entered.__enter__()  # type: ignore[no-untyped-call]
        _thread.see, _thread.mode = see, entered
        return call.model(*call.arguments, **call.keywords), torch.is_grad_enabled()
    except BaseException as error:
        if entered is not None and not isinstance(error, Exception):
            # An interrupted call of torch may hold a mode that it removed temporarily, and restore
            # it when its frame is freed. This must happen before the modes are restored.
            traceback.clear_frames(error.__traceback__)
        raise
    finally:
        _thread.see, _thread.mode = outer, outer_mode
        if entered is not None:
            entered.live = False
        if outer_mode is not None:
            outer_mode.suspended = False
        try:
            _end(before, handles, compiled=compiled)
        except BaseException:
            _end(before, handles, compiled=compiled)
            raise


def _end(before: _State, handles: list[RemovableHandle], *, compiled: bool) -> None:
    before.restore()
    for handle in handles:
        handle.remove()
    if compiled:
        _uncompiled.leave(handles)


#: Modules with a fused inference path, whose inner layers receive packed (nested) tensors. They
#: take the ordinary path while any function mode is active, even one that changes no call.
_FUSED = (nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.MultiheadAttention)


def _is_compiled(module: nn.Module) -> bool:
    return module._compiled_call_impl is not None or "_orig_mod" in module._modules


class _Uncompiled:
    """Makes compiled models run uncompiled, since a compiled call runs no new hooks.

    All threads share the compiler's stance: the first run sets it, the last one restores it.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users: list[object] = []
        self.stance: Any = None

    def enter(self, user: object) -> None:
        with self.lock:
            self.users.append(user)
            if self.stance is None:
                self.stance = torch.compiler.set_stance("force_eager")

    def leave(self, user: object) -> None:
        with self.lock:
            others = [u for u in self.users if u is not user]
            if len(others) == len(self.users):
                return
            if not others:
                if self.stance is None:  # interrupted while it was being set
                    torch.compiler.set_stance("default")
                else:
                    self.stance.__exit__(None, None, None)
                self.stance = None
            self.users = others


_uncompiled = _Uncompiled()
