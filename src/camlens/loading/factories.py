"""Make a model by calling the user's function, named as ``package.module:function``."""

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
    """Call a function without arguments and return the module it returns.

    Args:
        spec: ``package.module:function``; the current folder is searched first. The name of an
            ``nn.Module`` instance works too.

    Raises:
        ImportError: a library that the package imports is missing.
        LookupError: the spec is malformed, or the package or function does not exist.
        TypeError: the function did not return a module.
        ValueError: the function raised an exception or called ``sys.exit``.

    Example:
        >>> make("torch.nn:Identity")
        Identity()
    """
    module_name, colon, name = spec.partition(":")
    if not (colon and module_name and name):
        hint = f"; did you mean torchvision:{spec}?" if spec.isidentifier() else ""
        raise LookupError(
            "expected a model as torchvision:NAME, timm:NAME, package.module:function or FILE.pt2, "
            f"got {spec!r}{hint}"
        )
    with _current_folder():
        try:
            with contextlib.redirect_stdout(sys.stderr):
                model = _attribute(module_name, name)
        except SystemExit as error:
            raise ValueError(f"importing {module_name} called sys.exit({error})") from error
        if not isinstance(model, nn.Module):
            try:
                # What it prints must not end up in the results on the output stream.
                with contextlib.redirect_stdout(sys.stderr):
                    model = model()
            except (Exception, SystemExit) as error:
                raise ValueError(f"{spec}() failed with {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        kind = type(model).__name__
        raise TypeError(f"expected {spec}() to return a torch.nn.Module, got {kind}")
    return model


def _attribute(module_name: str, name: str) -> Any:
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
    """Make modules in the current folder importable."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def near(name: str, names: Sequence[str]) -> str:
    """Return a "did you mean" clause for a misspelt name, or an empty string.

    Example:
        >>> near("vgg91", ["vgg19", "alexnet"])
        '; did you mean vgg19?'
    """
    matches = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(matches)}?" if matches else ""
