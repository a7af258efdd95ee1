"""Create explainers by name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence

import typer
from torch import nn

import camlens

from ..loading.factories import attribute, near


def all_methods() -> dict[str, type[camlens.Explainer]]:
    """Return the explainer classes by name."""
    members = (getattr(camlens, name) for name in sorted(camlens.__all__, key=str.lower))
    return {
        cls.__name__: cls
        for cls in members
        # Classes that are not final are base classes.
        if inspect.isclass(cls) and issubclass(cls, camlens.Explainer) and _is_final(cls)
    }


def needed(cls: type[camlens.Explainer]) -> list[str]:
    """Return the required arguments of an explainer that the command line cannot pass."""
    first, *others = list(inspect.signature(cls).parameters.values())
    required = [p.name for p in others if p.default is p.empty and p.kind not in _VARIADIC]
    return ["explainer", *required] if first.name == "explainer" else required


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def explainers(
    names: Sequence[str], model: nn.Module, layers: Sequence[str] | None
) -> list[camlens.Explainer]:
    """Create explainers; case and punctuation in a method's name do not matter.

    Raises:
        typer.BadParameter: a method is unknown or needs more than a model, or layers were given but
            no method takes one.
        LookupError: a layer is unknown.
    """
    classes = [_method(name) for name in names]
    if len(set(classes)) < len(classes):
        raise typer.BadParameter(f"expected each --method once, got {', '.join(names)}")
    for cls in classes:
        if missing := needed(cls):
            raise typer.BadParameter(
                f"{cls.__name__} needs {' and '.join(missing)} as well as a model: create it in "
                f"Python, see help(camlens.{cls.__name__})"
            )
    if layers and not any(issubclass(cls, camlens.LayerExplainer) for cls in classes):
        raise typer.BadParameter(
            f"--layer has no effect on {', '.join(names)}: leave it out, or see camlens methods"
        )
    chosen = list(layers) if layers else None
    return [
        cls(model, chosen) if issubclass(cls, camlens.LayerExplainer) else cls(model)
        for cls in classes
    ]


def _method(name: str) -> type[camlens.Explainer]:
    if ":" in name:
        named = attribute(name, "--method")
        if not inspect.isclass(named) or not issubclass(named, camlens.Explainer):
            raise typer.BadParameter(
                f"expected --method {name} as a subclass of camlens.Explainer, got {named!r:.60}"
            )
        return named
    methods = all_methods()
    known = {_bare(each): each for each in methods}
    if _bare(name) not in known:
        hint = near(_bare(name), list(known)).rstrip("?") or f": choose from {', '.join(methods)}"
        for bare, written in known.items():
            hint = re.sub(rf"\b{bare}\b", written, hint)
        raise typer.BadParameter(f"unknown method {name!r}{hint}")
    return methods[known[_bare(name)]]


def _bare(name: str) -> str:
    """Return a name's letters, so that grad-cam++ matches GradCAMPlusPlus."""
    return re.sub(r"[^a-z]", "", name.lower().replace("+", "plus"))


def _is_final(cls: type) -> bool:
    return bool(cls.__dict__.get("__final__", False))
