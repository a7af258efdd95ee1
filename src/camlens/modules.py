"""Which module a dotted name means, and what is left of a model without its wrappers."""

from __future__ import annotations

import contextlib
import difflib
import threading
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside ``torch.compile``, ``DataParallel`` and ``DistributedDataParallel``.

    Explaining needs neither replicas nor a compiled graph, and hooks inside either are lost.

    Example:
        >>> inner = nn.Conv2d(1, 1, 1)
        >>> unwrap(DataParallel(inner)) is inner
        True
    """
    while True:
        if isinstance(model, (DataParallel, DistributedDataParallel)):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def named(model: nn.Module) -> dict[str, nn.Module]:
    """Return all modules below ``model`` by dotted name, the names free of compile wrappers."""
    return {
        name.replace("_orig_mod.", ""): unwrap(module)
        for name, module in model.named_modules()
        if name and not name.endswith("_orig_mod")
    }


def resolve(model: nn.Module, layer: str | nn.Module) -> str:
    """Return the dotted name of a layer given by name or as the module itself.

    Raises:
        LookupError: the model has no such layer; the nearest names are listed.
        TypeError: ``layer`` is neither a string nor a module.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> resolve(net, "1"), resolve(net, net[0])
        ('1', '0')
    """
    modules = named(model)
    if isinstance(layer, nn.Module):
        wanted = unwrap(layer)
        for name, module in modules.items():
            if module is wanted:
                return name
        raise LookupError(
            f"this {type(layer).__name__} is not a part of {type(model).__name__}: "
            "pass a module that lies inside the model, or its dotted name"
        )
    if not isinstance(layer, str):
        raise TypeError(f"expected a layer's dotted name or module, got {type(layer).__name__}")
    for name in (layer, layer.replace("_orig_mod.", ""), layer.removeprefix("module.")):
        if name in modules:
            return name
    for name, module in model.named_modules(remove_duplicate=False):
        if name == layer:  # another name of a module that is used in several places
            return resolve(model, module)
    near = difflib.get_close_matches(layer, modules, n=5, cutoff=0.4) or list(modules)[-5:]
    raise LookupError(
        f"{type(model).__name__} has no layer {layer!r}; near names: {', '.join(near)}. "
        "camlens.find_layers(model, images) lists those that can be explained"
    )


def resolve_all(
    model: nn.Module, layers: str | nn.Module | Sequence[str | nn.Module]
) -> tuple[str, ...]:
    """Return the dotted names of one layer or several, each once.

    Raises:
        LookupError: see :func:`resolve`.
        TypeError: see :func:`resolve`.
        ValueError: no layer is given.
    """
    if isinstance(layers, Sequence) and not isinstance(layers, str):
        names = tuple(dict.fromkeys(resolve(model, layer) for layer in layers))
    else:
        names = (resolve(model, layers),)
    if not names:
        raise ValueError("expected at least one layer, got an empty sequence")
    return names


class _ForcedEager:
    """The compiler's stance, one for all threads: the first user sets it, the last restores it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.stance = contextlib.ExitStack()

    def enter(self) -> None:
        with self.lock:
            if self.users == 0:
                self.stance.enter_context(torch.compiler.set_stance("force_eager"))
            self.users += 1

    def leave(self) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self.stance.close()


_forced_eager = _ForcedEager()


@contextlib.contextmanager
def eager(model: nn.Module) -> Iterator[None]:
    """Run compiled parts of the model uncompiled: a compiled call runs no hooks of ours."""
    if not any(m._compiled_call_impl or hasattr(m, "_orig_mod") for m in model.modules()):
        yield
        return
    _forced_eager.enter()
    try:
        yield
    finally:
        _forced_eager.leave()
