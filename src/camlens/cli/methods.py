"""Explainers by name."""

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
    found = (getattr(camlens, name) for name in sorted(camlens.__all__, key=str.lower))
    return {
        cls.__name__: cls
        for cls in found
        # What is not final is what others share.
        if inspect.isclass(cls) and issubclass(cls, camlens.Explainer) and _is_final(cls)
    }


def needed(cls: type[camlens.Explainer]) -> list[str]:
    """Return the arguments that an explainer needs and the command line cannot give."""
    first, *others = list(inspect.signature(cls).parameters.values())
    required = [p.name for p in others if p.default is p.empty and p.kind not in _VARIADIC]
    return ["explainer", *required] if first.name == "explainer" else required


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def explainers(
    names: Sequence[str], model: nn.Module, layers: Sequence[str] | None
) -> list[camlens.Explainer]:
    """Make explainers; of a method's name case and punctuation do not matter.

    Raises:
        typer.BadParameter: there is no such method, it needs more than a model, or layers were
            named for none that takes one.
        LookupError: there is no such layer.
    """
    classes = [_method(name) for name in names]
    for cls in classes:
        if missing := needed(cls):
            raise typer.BadParameter(
                f"{cls.__name__} needs its {' and '.join(missing)} as well as a model: make it in "
                f"Python, see help(camlens.{cls.__name__})"
            )
    if layers and not any(issubclass(cls, camlens.LayerExplainer) for cls in classes):
        raise typer.BadParameter(
            f"--layer means nothing to {', '.join(names)}: leave it out, or see camlens methods"
        )
    chosen = list(layers) if layers else None
    return [
        cls(model, chosen) if issubclass(cls, camlens.LayerExplainer) else cls(model)
        for cls in classes
    ]


def _method(name: str) -> type[camlens.Explainer]:
    if ":" in name:
        found = attribute(name, "--method")
        if not inspect.isclass(found) or not issubclass(found, camlens.Explainer):
            raise typer.BadParameter(
                f"expected --method {name} as a class of camlens.Explainer, got {found!r:.60}"
            )
        return found
    methods = all_methods()
    known = {_bare(each): each for each in methods}
    if _bare(name) not in known:
        hint = near(_bare(name), list(known)).rstrip("?") or f"; there are {', '.join(methods)}"
        for bare, written in known.items():
            hint = re.sub(rf"\b{bare}\b", written, hint)
        raise typer.BadParameter(f"there is no method {name!r}{hint}")
    return methods[known[_bare(name)]]


def _bare(name: str) -> str:
    """Return a name's letters: grad-cam++ and GradCAMPlusPlus are one."""
    return re.sub(r"[^a-z]", "", name.lower().replace("+", "plus"))


def _is_final(cls: type) -> bool:
    return bool(cls.__dict__.get("__final__", False))
