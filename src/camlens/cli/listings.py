"""``camlens layers`` and ``camlens methods``: what can be explained, and how."""

from __future__ import annotations

import inspect
import re
from typing import Any

import torch

from ..explainers import LayerExplainer
from ..layers import find_default_layer, find_layers
from . import console, methods, options

# The size that pictures have where neither weights nor an option say it.
_SIZE = (224, 224)


def list_layers(
    model: options.ModelArgument,
    *,
    weights: options.Weights = None,
    size: options.Size = None,
    classes: options.Classes = None,
    unsafe_pickle: options.UnsafePickle = False,
    as_json: options.Json = False,
) -> None:
    """List the layers that can be explained, and which one is explained by default.

    The model runs some tens of times, on noise. Without a size of its own it gets 224x224 pixels.
    """
    loaded = options.load_model(
        model, weights, size=size, classes=classes, trusted_pickle=unsafe_pickle
    )
    how = loaded.preprocessing
    noise = torch.rand(1, how.channels, *(how.size or _SIZE), generator=torch.Generator())
    with console.redirected():
        found = find_layers(loaded.model, noise)
        try:
            chosen = find_default_layer(loaded.model, noise)
        except LookupError:
            chosen = ""
    rows = [
        {
            "layer": layer.name,
            "type": layer.type,
            "channels": layer.channels,
            "grid": "x".join(map(str, layer.grid)),
            "all evidence": layer.all_evidence,
            "default": layer.name == chosen,
        }
        for layer in found
    ]
    if as_json:
        console.document({"model": model, "layers": rows})
        return
    shape = "x".join(map(str, noise.shape[-2:]))
    marked = [
        row
        | {
            "all evidence": "yes" if row["all evidence"] else "no",
            "default": "<-" if row["default"] else "",
        }
        for row in rows
    ]
    console.show(marked, title=f"{model} at {shape} pixels")
    if not chosen:
        console.note("no layer is a map through which all evidence passes: name one yourself")


def list_methods(*, as_json: options.Json = False) -> None:
    """List the methods: what each is, what it needs, and what it costs.

    Costs are of one image: F is a forward pass, T the part of one behind the layer.
    """
    rows: list[dict[str, Any]] = [
        {
            "method": name,
            "layer": issubclass(cls, LayerExplainer),
            "what it is": _summary(cls),
            "needs": cls.needs,
            "costs": cls.cost,
            "in Python only": bool(methods.needed(cls)),
        }
        for name, cls in methods.all_methods().items()
    ]
    if as_json:
        console.document({"methods": rows})
        return
    shown = ("method", "what it is", "needs", "costs")
    console.show([{name: row[name] for name in shown} for row in rows])
    only = [row["method"] for row in rows if row["in Python only"]]
    console.note(
        "costs of one image: F is a forward pass, T the part of one behind the layer, which for "
        f"the last layers is little. {' and '.join(only)} can be made in Python only"
    )


def _summary(cls: type) -> str:
    """Return a docstring's first line, without the reference to a function in it."""
    first = (inspect.getdoc(cls) or "").split("\n\n", maxsplit=1)[0]
    first = re.sub(r",? (see )?:func:`[^`]*`|, arXiv:[0-9.]+", "", " ".join(first.split()))
    first = re.sub(r" \(arXiv:[0-9.]+\)", "", first)
    return first.rstrip(".")
