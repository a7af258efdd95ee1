"""Create a model by calling a user's function, named as ``package.module:function``."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

#: The forms of a model's name.
SPECS = (
    "torchvision:NAME, timm:NAME, hf:NAME, open_clip:NAME, package.module:function, FILE.pt2 or "
    "FILE.pt"
)


class Made(NamedTuple):
    """The values that a user's function returned.

    Attributes:
        model: the module.
        transform: converts a PIL image to the model's input; None if not returned.
        classes: names of the outputs; None if not returned.
    """

    model: nn.Module
    transform: Callable[[Any], Any] | None = None
    classes: tuple[str, ...] | None = None


def make(spec: str) -> Made:
    """Call a user's function without arguments and return the model that it creates.

    Args:
        spec: ``package.module:function``; the current folder is searched first. The function
            returns a module, (module, transform) or (module, transform, classes). The transform
            is a callable from an RGB PIL image to (C, H, W) floating point, or None; the classes
            are a sequence of names. The name of an ``nn.Module`` instance works too.

    Raises:
        ImportError: a library that the package imports is missing.
        LookupError: the spec is malformed, or the package or function does not exist.
        TypeError: the function returned other values.
        ValueError: the function raised an exception or called ``sys.exit``.

    Example:
        >>> make("torch.nn:Identity")
        Made(model=Identity(), transform=None, classes=None)
    """
    module_name, colon, name = spec.partition(":")
    if not (colon and module_name and name):
        hint = f"; did you mean torchvision:{spec}?" if spec.isidentifier() else ""
        raise LookupError(f"expected a model as {SPECS}, got {spec!r}{hint}")
    # Its output must not mix with the results on standard output.
    with _current_folder(), contextlib.redirect_stdout(sys.stderr):
        made = _attribute(module_name, name)
        if not isinstance(made, nn.Module):
            try:
                made = made()
            except (Exception, SystemExit) as error:
                raise ValueError(f"{spec}() failed with {type(error).__name__}: {error}") from error
    return _checked(made, spec)


def attribute(spec: str, what: str) -> Any:
    """Import the object named ``package.module:name``; the current folder is searched first.

    Args:
        spec: the name.
        what: the name's purpose, for error messages.

    Raises:
        ImportError: a library that the package imports is missing.
        LookupError: the spec is malformed, or the package or name does not exist.
        ValueError: importing the package called ``sys.exit``.

    Example:
        >>> attribute("math:pi", "the number")
        3.141592653589793
    """
    module_name, colon, name = spec.partition(":")
    if not (colon and module_name and name):
        raise LookupError(f"expected {what} as package.module:name, got {spec!r}")
    with _current_folder(), contextlib.redirect_stdout(sys.stderr):
        return _attribute(module_name, name)


def _checked(made: Any, spec: str) -> Made:
    parts = tuple(made) if isinstance(made, tuple | list) else (made,)
    if not 1 <= len(parts) <= 3 or not isinstance(parts[0], nn.Module):
        kinds = ", ".join(type(part).__name__ for part in parts)
        raise TypeError(
            f"expected {spec}() to return a torch.nn.Module, (module, transform) or (module, "
            f"transform, classes), got {kinds if len(parts) == 1 else f'({kinds})'}"
        )
    model, transform, classes = (*parts, None, None)[:3]
    if transform is not None and not callable(transform):
        raise TypeError(
            f"expected the second value that {spec}() returns as a transform, a callable from a "
            f"PIL image to (C, H, W) floating point, got {type(transform).__name__}"
        )
    if classes is None:
        return Made(model, transform)
    if isinstance(classes, str) or not isinstance(classes, Sequence) or not classes:
        raise TypeError(
            f"expected the third value that {spec}() returns as a list of class names, got "
            f"{type(classes).__name__}{' without any' if isinstance(classes, Sequence) else ''}"
        )
    return Made(model, transform, tuple(map(str, classes)))


def _attribute(module_name: str, name: str) -> Any:
    try:
        module = importlib.import_module(module_name)
    except SystemExit as error:
        raise ValueError(f"importing {module_name} called sys.exit({error})") from error
    except ModuleNotFoundError as error:
        if error.name and (module_name + ".").startswith(error.name + "."):
            raise LookupError(
                f"there is no module {error.name!r} in {Path.cwd()} or among installed packages"
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
