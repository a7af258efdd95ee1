"""Hash everything that affects the results of a run: models, functions, transforms, data sets.

Two values have equal fingerprints, in any process, if they contain equal values and run equal code.
The hash covers weights, buffers and arrays; plain containers and the attributes of objects,
including private ones and slots; the byte code, constants, defaults, closures and used globals of
functions; and the methods of classes. Code of installed packages is represented by its name and the
package's version, code of Python's standard library by its name.
"""

from __future__ import annotations

import contextlib
import enum
import inspect
import logging
import os
import re
import threading
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...model import unwrap
from .contents import array_content, sha, tensor_content
from .module_state import attributes, scripted
from .used_code import (
    imported_modules,
    is_library,
    loads_first_constant,
    name_of,
    names_in,
    package_of,
    used_members,
    version_of,
)

#: Types whose values are hashed by their repr; values of their subclasses are objects.
_PLAIN = frozenset(
    [
        *(type(None), bool, int, float, complex, str, bytes, range, slice, type(...)),
        torch.dtype,
    ]
)
#: Types whose contents cannot affect a number.
_EMPTY = (
    type(threading.Lock()),
    type(threading.RLock()),
    threading.Event,
    threading.Condition,
    threading.local,
    weakref.ReferenceType,
    logging.Logger,
    torch.fx.Graph,
)
#: Attributes of classes that their methods do not read.
_NOT_CODE = frozenset(
    [
        *("__module__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__slots__"),
        *("__firstlineno__", "__static_attributes__", "__abstractmethods__", "_abc_impl"),
        *("__dataclass_fields__", "__dataclass_params__", "__match_args__", "__parameters__"),
        *("__orig_bases__", "__annotate_func__", "__annotations_cache__"),
        "__slotnames__",  # added by pickle
    ]
)
_METHODS = (types.FunctionType, classmethod, staticmethod, property)
_SLOTS = (types.MemberDescriptorType, types.GetSetDescriptorType, types.WrapperDescriptorType)
_BUILT_IN = (types.BuiltinFunctionType, types.MethodWrapperType, types.MethodDescriptorType)
_SCRIPTED = torch.jit.ScriptFunction


def fingerprint(value: Any) -> str:
    """Return a SHA-256 of a value's contents and of the code that it runs.

    An object with a method ``fingerprint()`` is represented by the string that it returns. The
    order of a dict counts, since code may iterate over it.

    Raises:
        ValueError: the value contains something that cannot be compared, such as an open file.

    Example:
        >>> import functools
        >>> fingerprint(functools.partial(max, 1)) == fingerprint(functools.partial(max, 2))
        False
        >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"a": 1, "b": 2})
        True
    """
    return Walk().of(value, "the value").hex()


class Walk:
    """Hashes nested values; an object that occurs twice is hashed once.

    Args:
        strict: whether a value that cannot be compared, such as an open file, is an error.
            Otherwise its hash is random.
    """

    def __init__(self, *, strict: bool = True) -> None:
        self._strict = strict
        self._known: dict[int, bytes] = {}
        self._open: list[int] = []
        self._alive: list[Any] = []  # so that Python does not reuse an id

    def of(self, value: Any, path: str) -> bytes:
        """Return the SHA-256 of a value; ``path`` names it in errors."""
        if type(value) in _PLAIN:
            return sha(type(value).__name__, repr(value))
        key = id(value)
        if key in self._open:  # it contains itself
            return sha("holder", str(len(self._open) - self._open.index(key)))
        if key not in self._known:
            self._open.append(key)
            self._alive.append(value)
            try:
                self._known[key] = self._composite(value, path)
            except RecursionError:
                self._known[key] = self._refused(value, path)
            finally:
                self._open.remove(key)
        return self._known[key]

    def joined(self, path: str, parts: Mapping[str, Any]) -> bytes:
        """Return the SHA-256 of named parts."""
        return sha(*(sha(k) + self.of(v, f"{path}.{k}") for k, v in sorted(parts.items())))

    def _all(self, kind: str, values: Iterable[Any], path: str) -> bytes:
        return sha(kind, *(self.of(v, f"{path}[{place}]") for place, v in enumerate(values)))

    def _composite(self, value: Any, path: str) -> bytes:
        if isinstance(value, type):
            return self._class(value, path)
        if isinstance(value, re.Pattern):  # its repr is truncated
            return sha("pattern", str(value.flags), repr(value.pattern))
        module = isinstance(value, types.ModuleType)
        fingerprint_of = None if module else getattr(value, "fingerprint", None)
        if callable(fingerprint_of):
            return sha("fingerprint", str(fingerprint_of()))
        if type(value) in _CONTAINERS:
            return _CONTAINERS[type(value)](self, value, path)
        for kinds, work in _KINDS:
            if isinstance(value, kinds):
                return work(self, value, path)
        return self._object(value, path)

    def _class(self, value: type, path: str) -> bytes:
        if is_library(value.__module__):
            return sha("class", name_of(value), version_of(value.__module__))
        members = {
            name: member
            for name, member in vars(value).items()
            if name not in _NOT_CODE and not isinstance(member, _SLOTS)
        }
        if issubclass(value, enum.Enum):  # its other members describe how its values are stored
            members = {n: m for n, m in members.items() if isinstance(m, _METHODS)}
            members |= {name: member.value for name, member in value.__members__.items()}
        bases = self._all("bases", (type(value), *value.__bases__), path)
        return sha("class", value.__qualname__, bases, self.joined(path, members))

    def _function(self, value: types.FunctionType, path: str) -> bytes:
        cells = []
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):  # an empty cell
                cells.append(cell.cell_contents)
        state = [cells, value.__defaults__, value.__kwdefaults__]
        if is_library(value.__module__):
            hashed = self._all("held", state, path)
            return sha("function", name_of(value), version_of(value.__module__), hashed)
        names = sorted(set(names_in(value.__code__)))
        used = {n: value.__globals__[n] for n in names if n in value.__globals__}
        used |= imported_modules(value)
        used = {
            n: used_members(g, names) if isinstance(g, types.ModuleType) else g
            for n, g in used.items()
        }
        code = self._code(value.__code__, value.__doc__, path)
        state += [used, {k: v for k, v in vars(value).items() if k != "__wrapped__"}]
        return sha("function", code, self._all(f"held by {value.__qualname__}", state, path))

    def _code(self, code: types.CodeType, doc: str | None, path: str) -> bytes:
        constants = list(code.co_consts)
        if doc is not None and constants[:1] == [doc] and not loads_first_constant(code):
            del constants[0]
        # A function without a docstring may have None in its place.
        constants = [constant for constant in constants if constant is not None]
        inner = [
            self._code(constant, None, path)
            if isinstance(constant, types.CodeType)
            else self.of(constant, path)
            for constant in constants
        ]
        # Of the arguments, callers may write the names.
        counts = (code.co_posonlyargcount, code.co_argcount, code.co_kwonlyargcount)
        named = code.co_varnames[counts[0] : counts[1] + counts[2]]
        taken = repr((*counts, code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)))
        ran = (code.co_code, code.co_exceptiontable)
        return sha("code", *ran, *code.co_names, "named", *named, taken, *inner)

    def _method(self, value: types.MethodType, path: str) -> bytes:
        return self._all("method", (value.__func__, value.__self__), path)

    def _built_in(self, value: Any, path: str) -> bytes:
        holder = getattr(value, "__self__", None)
        holder = None if isinstance(holder, types.ModuleType) else holder
        return sha("built in", name_of(value), self.of(holder, path))

    def _mapping(self, value: Mapping[Any, Any], path: str) -> bytes:
        items = (self.of(k, path) + self.of(v, f"{path}[{k!r:.40}]") for k, v in value.items())
        return sha("mapping", *items)

    def _set(self, value: Iterable[Any], path: str) -> bytes:
        elements = sha("set", *sorted(self.of(element, path) for element in value))
        return self._of_class(value, elements, path)

    def _of_class(self, value: Any, content: bytes, path: str) -> bytes:
        """Add the code and the attributes of a user's subclass to an instance's content."""
        if is_library(type(value).__module__):
            return content
        own = (type(value), getattr(value, "__dict__", None))
        return sha("subclass", content, self._all("own", own, path))

    def _sequence(self, value: Iterable[Any], path: str) -> bytes:
        return self._all(type(value).__name__, value, path)

    def _module(self, value: nn.Module, path: str) -> bytes:
        value = unwrap(value)
        tensors = {"parameters": value._parameters, "buffers": value._buffers}
        parts = {**attributes(value), **tensors, "modules": value._modules}
        code = self.of((type(value), scripted(value)), path)
        return sha("module", code, self.joined(path, parts))

    def _array(self, value: Any, path: str) -> bytes:
        if value.dtype.hasobject:
            content = self._all("objects", (value.shape, value.tolist()), path)
        else:
            content = sha("array", str(value.dtype), str(value.shape), array_content(value))
        return self._of_class(value, content, path)

    def _refused(self, value: Any, path: str) -> bytes:
        if self._strict:
            raise ValueError(_incomparable(value, path)) from None
        return os.urandom(16)

    def _object(self, value: Any, path: str) -> bytes:
        """Hash the parts of an object that pickle would store."""
        try:
            reduced = value.__reduce_ex__(4)
        except Exception:  # pickle can raise any exception
            if is_library(type(value).__module__) or not hasattr(value, "__dict__"):
                return self._refused(value, path)
            reduced = type(value), (), vars(value)
        if isinstance(reduced, str):
            inner = getattr(value, "__wrapped__", None)  # for example functools.cache
            return sha("global", name_of(value), reduced, self.of(inner, path))
        parts = [list(part) if isinstance(part, Iterator) else part for part in reduced]
        return self._all("object", [type(value), *parts], path)


_KINDS: tuple[tuple[Any, Callable[[Walk, Any, str], bytes]], ...] = (
    (_EMPTY, lambda walk, value, path: sha("empty", name_of(value))),
    (
        Tensor,
        lambda walk, v, path: walk._of_class(v, sha(*tensor_content(v)), path),
    ),
    (np.ma.MaskedArray, Walk._object),
    ((np.ndarray, np.generic), Walk._array),
    (np.ufunc, lambda walk, value, path: sha("ufunc", value.__name__, np.__version__)),
    (_SCRIPTED, lambda walk, value, path: sha("scripted", str(value.code))),
    (torch.device, lambda walk, value, path: sha("device", value.type)),  # ranks have their own
    (torch.Generator, lambda walk, value, path: walk.of(value.get_state(), path)),
    (enum.Enum, lambda walk, value, path: walk._all("enum", (type(value), value.name), path)),
    (os.PathLike, lambda walk, value, path: sha("path", os.fspath(value))),
    (types.ModuleType, lambda walk, value, path: sha("package", package_of(value))),
    (nn.Module, Walk._module),
    (types.FunctionType, Walk._function),
    (types.MethodType, Walk._method),
    (_BUILT_IN, Walk._built_in),
    ((staticmethod, classmethod), lambda walk, value, path: walk.of(value.__func__, path)),
    (
        property,
        lambda walk, value, path: walk._all("p", (value.fget, value.fset, value.fdel), path),
    ),
    (types.MappingProxyType, Walk._mapping),
    ((set, frozenset), Walk._set),
)
#: Containers; their subclasses are objects, which may have attributes and code of their own.
_CONTAINERS: dict[type, Callable[[Walk, Any, str], bytes]] = {
    **{dict: Walk._mapping, list: Walk._sequence, tuple: Walk._sequence}
}


def _incomparable(value: Any, path: str) -> str:
    return (
        f"cannot check whether {path} is unchanged when the run resumes: it contains "
        f"{name_of(value)}. Give the object that contains it a method fingerprint(), which "
        "returns a string that changes with its content, or remove it"
    )
