"""``camlens layers`` and ``camlens methods``: list a model's layers and the methods."""

from __future__ import annotations

import inspect
import re
from typing import Any

import torch

from ..explainers.layer_explainer import LayerExplainer
from ..layers import find_default_layer, find_layers
from . import console, methods, options

# The input size if neither the weights nor an option set it.
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
    """List the layers that can be explained, and mark the default layer.

    Runs the model a few dozen times on noise, at 224x224 pixels if the model has no input size.
    """
    try:
        loaded = options.load_model(
            model, weights, size=size, classes=classes, trusted_pickle=unsafe_pickle
        )
    except OSError as error:
        if weights is None:
            error.add_note("layers do not depend on the weights: pass --weights none")
        raise
    preprocessing = loaded.preprocessing
    noise = torch.rand(
        1, preprocessing.channels, *(preprocessing.size or _SIZE), generator=torch.Generator()
    )
    with console.redirected():
        layers = find_layers(loaded.model, noise)
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
        for layer in layers
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
        console.note("no layer is a map through which all evidence passes: choose one with --layer")


def list_methods(*, as_json: options.Json = False) -> None:
    """List the methods with what each needs and costs.

    Costs are per image: F is a forward pass, T the part of a forward pass after the layer.
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
        "costs are per image: F is a forward pass, T the part of a forward pass after the layer, "
        f"which is small for the last layers. {' and '.join(only)} are available in Python only"
    )


def _summary(cls: type) -> str:
    """Return a docstring's first line without references to functions and papers."""
    first = (inspect.getdoc(cls) or "").split("\n\n", maxsplit=1)[0]
    first = re.sub(r",? (see )?:func:`[^`]*`|, arXiv:[0-9.]+", "", " ".join(first.split()))
    first = re.sub(r" \(arXiv:[0-9.]+\)", "", first)
    return first.rstrip(".")
