"""What decides the numbers of a run, in words that can be compared."""

from __future__ import annotations

import enum
import functools
import hashlib
import importlib.metadata
import inspect
import json
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from ..explainers import Explainer
from ..regions.masks import Regions

#: Packages whose version decides numbers, or bytes in the tables.
PACKAGES = ("torch", "numpy", "pandas", "pyarrow", "pillow")

_DEEPEST = 3

_PLAIN = (type(None), int, float, str)
_FUNCTIONS = (FunctionType, MethodType, BuiltinFunctionType, functools.partial)


def fingerprint(model: nn.Module) -> str:
    """Return a SHA-256 over the names, types, shapes and bytes of a model's state dict.

    Example:
        >>> fingerprint(nn.ReLU())[:8]  # nothing in it
        'e3b0c442'
    """
    found = hashlib.sha256()
    for name, value in model.state_dict().items():
        found.update(name.encode())
        found.update(_hash(value).encode() if isinstance(value, Tensor) else repr(value).encode())
    return found.hexdigest()


def structure(model: nn.Module) -> str:
    """Return a SHA-256 over what a model is besides its state dict.

    Models of equal weights can be different functions. It covers how the model prints, and of
    each module the class, the class's source where there is one, the code that a traced or an
    exported one holds, and the numbers, texts and functions among its attributes.
    """
    return _structure(model, 0)


def _structure(model: nn.Module, depth: int) -> str:
    modules = dict(model.named_modules())
    kinds = {kind: _source(kind) for module in modules.values() for kind in _kinds(module)}
    # Inside of another description functions are named only: they may hold the model itself.
    inside = _DEEPEST + 1 if depth else 1
    found: list[Any] = [repr(model), [[_name(kind), text] for kind, text in kinds.items()]]
    for name, module in modules.items():
        held = {
            key: describe(value, inside)
            for key, value in sorted(vars(module).items())
            # The device's name differs between ranks, and is in the manifest by its kind.
            if not key.startswith("_")
            and key != "device"
            and isinstance(value, (*_PLAIN, *_FUNCTIONS))
        }
        found.append([name, _name(type(module)), str(getattr(module, "code", "")), held])
    text = re.sub(r" at 0x[0-9A-Fa-f]+", "", json.dumps(found))
    return hashlib.sha256(text.encode()).hexdigest()


def _kinds(module: nn.Module) -> list[type]:
    # Of torch's own classes the version says as much, and in less time.
    return [
        kind
        for kind in type(module).__mro__
        if kind is not object and not kind.__module__.startswith("torch.")
    ]


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError, SyntaxError):  # typed into a prompt, built in, or since changed
        return ""


def describe_explainer(explainer: Explainer) -> dict[str, Any]:
    """Return an explainer's method, layers and options, without its model.

    ``layers`` are None where the explainer finds the last one, and for input gradients.
    """
    layers = getattr(explainer, "layers", None)
    options = {
        name: describe(value)
        for name, value in sorted(vars(explainer).items())
        if not name.startswith("_") and name not in ("model", "layers") and value is not None
    }
    if layers is None and hasattr(explainer, "layers"):
        options["layer"] = "last"
    return {
        "method": type(explainer).__name__,
        "layers": None if layers is None else list(layers),
        "options": options,
    }


def describe_dataset(dataset: Any) -> dict[str, Any]:
    """Return a data set's type, length and, if it says one itself, its fingerprint."""
    own = getattr(dataset, "fingerprint", None)
    return {
        "type": type(dataset).__name__,
        "items": len(dataset) if hasattr(dataset, "__len__") else None,
        "fingerprint": str(own()) if callable(own) else None,
    }


def versions() -> dict[str, str]:
    """Return the versions of camlens, Python, and the packages that decide numbers or bytes."""
    from .. import __version__

    found = {"camlens": __version__, "python": platform.python_version()}
    return {**found, **{name: importlib.metadata.version(name) for name in PACKAGES}}


def describe(value: Any, depth: int = 0) -> Any:
    """Return an option as JSON knows it, the same in every process.

    Of a function its name, the constants and names in it, and the values it is closed over; of
    a tensor and of regions a hash; of another object its type and its public attributes.

    Args:
        value: the option.
        depth: how far it is inside of another one; what is too far inside is only named, but for
            numbers and texts.

    Example:
        >>> describe(torch.zeros(2))
        'float32 (2,) 21ff1b764ef3e705'
        >>> describe(lambda out: out[:, 3])["constants"]
        ['3']
    """
    if depth > _DEEPEST and not isinstance(value, _PLAIN):
        return _name(value)
    return _describe(value, depth)


@functools.singledispatch
def _describe(value: Any, depth: int) -> Any:
    if isinstance(value, type) or hasattr(value, "__qualname__"):
        return _name(value)
    own = getattr(value, "__dict__", {})
    public = {name: one for name, one in sorted(own.items()) if not name.startswith("_")}
    if not public:
        return _name(value)
    return {"type": _name(value), "attributes": describe(public, depth)}


@_describe.register(type(None))
@_describe.register(int)
@_describe.register(float)
@_describe.register(str)
def _(value: Any, depth: int) -> Any:
    return value


@_describe.register(enum.Enum)
@_describe.register(torch.dtype)
def _(value: Any, depth: int) -> Any:
    return str(value)


@_describe.register(Mapping)
def _(value: Mapping[Any, Any], depth: int) -> Any:
    return {str(key): describe(one, depth + 1) for key, one in value.items()}


@_describe.register(list)
@_describe.register(tuple)
def _(value: Sequence[Any], depth: int) -> Any:
    return [describe(one, depth + 1) for one in value]


@_describe.register
def _(value: Tensor, depth: int) -> Any:
    kind = str(value.dtype).removeprefix("torch.")
    return f"{kind} {tuple(value.shape)} {_hash(value)[:16]}"


@_describe.register
def _(value: Regions, depth: int) -> Any:
    return {"names": list(value.names), "masks": describe(value.masks)}


@_describe.register
def _(value: nn.Module, depth: int) -> Any:
    return {
        "type": _name(type(value)),
        "fingerprint": fingerprint(value),
        "structure": _structure(value, depth),
    }


@_describe.register(functools.partial)
def _(value: functools.partial[Any], depth: int) -> Any:
    return {
        "partial": describe(value.func, depth + 1),
        "with": describe([list(value.args), value.keywords], depth + 1),
    }


@_describe.register
def _(value: MethodType, depth: int) -> Any:
    return {
        "method": describe(value.__func__, depth + 1),
        "of": describe(value.__self__, depth + 1),
    }


@_describe.register
def _(value: FunctionType, depth: int) -> Any:
    found: dict[str, Any] = {
        "function": _name(value),
        "constants": [text for text in _constants(value.__code__) if text != repr(value.__doc__)],
        "names": list(value.__code__.co_names),
    }
    cells = [cell.cell_contents for cell in value.__closure__ or ()]
    for name, held in (
        ("closed over", cells),
        ("defaults", [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]),
    ):
        if held:
            found[name] = [describe(one, depth + 1) for one in held]
    return found


def _constants(code: CodeType) -> Iterator[str]:
    """Return the constants of a function and of the functions in it, as text."""
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from _constants(one)
        elif isinstance(one, frozenset):  # in an order that is another in each process
            yield f"{{{', '.join(sorted(map(repr, one)))}}}"
        elif one is not None:
            yield repr(one)


def _name(value: Any) -> str:
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{getattr(named, '__module__', '')}.{named.__qualname__}"


def _hash(tensor: Tensor) -> str:
    found = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    plain = tensor.detach().cpu().contiguous().reshape(-1)
    if plain.numel():
        found.update(plain.view(torch.uint8).numpy().data)
    return found.hexdigest()
