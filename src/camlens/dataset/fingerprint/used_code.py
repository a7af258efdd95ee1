"""Find the code that a function uses, and tell user code from that of installed packages."""

from __future__ import annotations

import contextlib
import dis
import functools
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_LIBRARIES = tuple(
    os.path.realpath(sysconfig.get_path(name)) + os.sep
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
# Packages may also come from another environment, through PYTHONPATH or a .pth file.
_FOLDERS = {"site-packages", "dist-packages"}


def names_in(code: types.CodeType) -> Iterator[str]:
    """Yield the global names and attributes that a function and those inside it use."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from names_in(constant)


def imported_modules(function: types.FunctionType) -> dict[str, types.ModuleType]:
    """Import and return the modules that a function and those inside it import, by name.

    They are imported here, so that the result does not depend on whether the function ran before.
    """
    package, found = function.__globals__.get("__package__"), {}
    for name, level, members in _imports_in(function.__code__):
        with contextlib.suppress(ImportError):  # the function may handle it
            full = importlib.util.resolve_name("." * level + name, package)
            found[full] = importlib.import_module(full)
            if not is_library(full):
                for member in members or ():  # which may be a module in a package
                    with contextlib.suppress(ImportError):
                        importlib.import_module(f"{full}.{member}")
    return found


def _imports_in(code: types.CodeType) -> Iterator[tuple[str, int, tuple[str, ...] | None]]:
    """Yield each import's module, the number of dots before it, and the imported members."""
    steps = list(dis.get_instructions(code))
    for place, step in enumerate(steps):
        if step.opname == "IMPORT_NAME":
            yield step.argval, steps[place - 2].argval, steps[place - 1].argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _imports_in(constant)


def package_of(module: types.ModuleType) -> str:
    """Return the name of a module and the version of the package that contains it."""
    return f"{module.__name__} {version_of(module.__name__)}"


def used_members(module: types.ModuleType, names: Iterable[str]) -> Any:
    """Return the members of a user's module that a function may use; for a package, its version."""
    if is_library(module.__name__):
        return package_of(module)
    names = list(names)
    members = {name: vars(module)[name] for name in names if name in vars(module)}
    return {
        name: used_members(member, [n for n in names if n != name])
        if isinstance(member, types.ModuleType)
        else member
        for name, member in members.items()
    }


def loads_first_constant(code: types.CodeType) -> bool:
    """Return whether code uses its first constant, so that it is more than the docstring."""
    return any(
        step.opname in ("LOAD_CONST", "RETURN_CONST") and step.arg == 0
        for step in dis.get_instructions(code)
    )


@functools.cache
def is_library(name: str | None) -> bool:
    """Return whether a module belongs to Python or to an installed package."""
    top = (name or "").partition(".")[0]
    if top in ("camlens", "builtins") or top in sys.stdlib_module_names - {"__main__"}:
        return True
    file = getattr(sys.modules.get(name or ""), "__file__", None)
    if file is None:
        return False
    path = os.path.realpath(file)
    return path.startswith(_LIBRARIES) or not _FOLDERS.isdisjoint(Path(path).parts)


@functools.cache
def version_of(module: str | None) -> str:
    """Return the version of the package that contains a module; "" for camlens and Python."""
    top = (module or "").partition(".")[0]
    if top == "camlens" or top in sys.stdlib_module_names or not is_library(module):
        return ""
    try:
        return str(sys.modules[top].__version__)
    except (KeyError, AttributeError):
        pass
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:  # its distribution has another name
        return ""


def name_of(value: Any) -> str:
    """Return the full name of a class or function, or of an object's class."""
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{getattr(named, '__module__', '')}.{named.__qualname__}"
