"""Describe a run's model, explainers, data set and options for its manifest."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import _get_current_function_mode_stack as function_modes

from ..explainers.base import Explainer
from ..model import unwrap
from ..regions.masks import Regions
from .fingerprint import Walk
from .fingerprint.module_state import attributes, global_hooks, scripted
from .fingerprint.used_code import is_library, name_of
from .manifest import FORMAT
from .options import RunOptions

#: Packages whose version determines the numbers, or the bytes of the tables.
PACKAGES = ("torch", "numpy", "pandas", "pyarrow", "pillow")


def describe_run(
    explainers: Sequence[Explainer], dataset: Any, options: RunOptions, *, resumable: bool = True
) -> dict[str, Any]:
    """Return the manifest of a run that is about to start: its inputs and options, no results.

    Args:
        explainers: explainers of one model.
        dataset: the data set.
        options: the run's options.
        resumable: whether a value that cannot be compared is an error; otherwise its hash is
            random.

    Raises:
        ValueError: see :func:`fingerprint`.
    """
    model = explainers[0].model
    some = next(model.parameters(), torch.empty(0))
    walk = Walk(strict=resumable)
    recorded = {name: describe(value, name, walk) for name, value in options.recorded().items()}
    names = list(options.regions.names) if isinstance(options.regions, Regions) else None
    return {
        "format": FORMAT,
        "model": describe_model(model, walk),
        "methods": [describe_explainer(explainer, walk) for explainer in explainers],
        **recorded,
        "targets": "predicted" if options.targets is None else recorded["targets"],
        "region_source": recorded["regions"],
        "regions": names,
        "dataset": describe_dataset(dataset, walk),
        "root": _root(dataset),
        "notes": list(options.notes),
        "device": some.device.type,
        "modes": describe_modes(some.device.type),
        "versions": versions(),
        "complete": False,
        "images": None,
        "unreadable": None,
        "shards": [],
    }


def describe(value: Any, what: str = "the value", walk: Walk | None = None) -> Any:
    """Return a value for a manifest: numbers and strings as they are, other values hashed.

    Args:
        value: an option of a run.
        what: its name in error messages.
        walk: computes the hash.

    Raises:
        ValueError: see :func:`fingerprint`.

    Example:
        >>> describe("blur"), describe(max)["name"]
        ('blur', 'builtins.max')
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [describe(element, f"{what}[{place}]", walk) for place, element in enumerate(value)]
    if isinstance(value, Explainer):  # an option of another explainer, such as SmoothGrad
        return describe_explainer(value, walk)
    return {"name": name_of(value), "fingerprint": (walk or Walk()).of(value, what).hex()}


def describe_model(model: nn.Module, walk: Walk | None = None) -> dict[str, str]:
    """Return hashes of a model's weights, code and other attributes.

    Raises:
        ValueError: see :func:`fingerprint`.
    """
    model = unwrap(model)
    walk, weights = walk or Walk(), hashlib.sha256()
    code, rest = hashlib.sha256(), hashlib.sha256()
    for name, module in model.named_modules(remove_duplicate=False):
        path = f"the model's {name}" if name else "the model"
        for tensors in (module._parameters, module._buffers):
            for key, tensor in tensors.items():
                weights.update(walk.of((name, key, tensor), path))
        code.update(walk.of((name, type(module), scripted(module)), path))
        rest.update(walk.joined(path, attributes(module)))
    rest.update(walk.of(global_hooks(), "torch's global hooks of modules"))
    return {
        "name": type(model).__name__,
        "weights": weights.hexdigest(),
        "code": code.hexdigest(),
        "attributes": rest.hexdigest(),
    }


def describe_explainer(explainer: Explainer, walk: Walk | None = None) -> dict[str, Any]:
    """Return an explainer's method, layers and options, without its model.

    ``layers`` is None if the explainer finds the layer itself, and for input-gradient methods.

    Raises:
        ValueError: see :func:`fingerprint`.
    """
    layers = getattr(explainer, "layers", None)
    options = {
        name: describe(value, f"the explainer's {name}", walk)
        for name, value in sorted(vars(explainer).items())
        if name not in ("model", "layers", "_measured") and value is not None
    }
    if layers is None and hasattr(explainer, "layers"):
        options["layer"] = "last"
    description = {
        "method": type(explainer).__name__,
        "layers": None if layers is None else list(layers),
        "options": options,
    }
    if not is_library(type(explainer).__module__):
        description["code"] = (walk or Walk()).of(type(explainer), "the explainer's class").hex()
    return description


def describe_dataset(dataset: Any, walk: Walk | None = None) -> dict[str, Any]:
    """Return a data set's type, length and fingerprint.

    Raises:
        ValueError: see :func:`fingerprint`.
    """
    return {
        "type": type(dataset).__name__,
        "items": len(dataset) if hasattr(dataset, "__len__") else None,
        "fingerprint": (walk or Walk()).of(dataset, "the data set").hex(),
    }


def _root(dataset: Any) -> str | None:
    """Return the folder that the items' names are relative to, if the data set has one."""
    root = getattr(dataset, "root", None)
    return str(Path(root).absolute()) if isinstance(root, (str, os.PathLike)) else None


def describe_modes(device: str) -> dict[str, str | None]:
    """Return torch's modes that affect results: autocast, function modes and precisions."""
    on = torch.is_autocast_enabled(device)
    return {
        "autocast": str(torch.get_autocast_dtype(device)) if on else None,
        "function_modes": ", ".join(name_of(mode) for mode in function_modes()) or None,
        "precisions": _precisions(),
    }


def _precisions() -> str:
    """Return the precisions in which matrix products and convolutions of float32 are computed."""
    backends = torch.backends
    operations = (
        *(backends.cuda.matmul, getattr(backends.cudnn, "conv", None)),
        *(getattr(backends.mkldnn, name, None) for name in ("matmul", "conv")),
    )
    found = [getattr(operation, "fp32_precision", None) for operation in operations]
    if None in found:  # before torch 2.9; later, these raise if such a precision was set
        found = [torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32]
    return ", ".join(map(str, found))


def versions() -> dict[str, str]:
    """Return the versions of camlens, Python, and the packages that affect the results."""
    from .. import __version__

    installed = {"camlens": __version__, "python": platform.python_version()}
    return {**installed, **{name: importlib.metadata.version(name) for name in PACKAGES}}
