"""Models from functions of yours, named in a few words."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn


def make(spec: str) -> nn.Module:
    """Return what a function makes, called without arguments.

    Args:
        spec: ``package.module:function``; the current folder is searched first. A module that is
            there already may stand in the function's place.

    Raises:
        ImportError: what the package imports is missing.
        LookupError: the spec is none, or there is no such package or function.
        TypeError: the function returned something else than a module.
        ValueError: the function failed.

    Example:
        >>> make("torch.nn:Identity")
        Identity()
    """
    module_name, colon, name = spec.partition(":")
    if not (colon and module_name and name):
        hint = f"; did you mean torchvision:{spec}?" if spec.isidentifier() else ""
        raise LookupError(
            f"expected a model as torchvision:NAME, package.module:function or FILE.pt2, got "
            f"{spec!r}{hint}"
        )
    with _current_folder():
        made = _function(module_name, name)
        if not isinstance(made, nn.Module):
            try:
                made = made()
            except Exception as error:
                raise ValueError(f"{spec}() failed with {type(error).__name__}: {error}") from error
    if not isinstance(made, nn.Module):
        raise TypeError(f"expected {spec}() to return a torch.nn.Module, got {type(made).__name__}")
    return made


def _function(module_name: str, name: str) -> Any:
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name + ".").startswith(error.name + "."):
            raise LookupError(
                f"there is no module {error.name!r} in {Path.cwd()} or among what is installed"
            ) from error
        raise
    if not hasattr(module, name):
        raise LookupError(f"{module_name} has no function {name!r}{near(name, dir(module))}")
    return getattr(module, name)


@contextlib.contextmanager
def _current_folder() -> Iterator[None]:
    """Let modules be imported from the current folder."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def near(name: str, names: Sequence[str]) -> str:
    """Return the end of a sentence that names what a wrong name may have meant.

    Example:
        >>> near("vgg91", ["vgg19", "alexnet"])
        '; did you mean vgg19?'
    """
    found = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(found)}?" if found else ""
