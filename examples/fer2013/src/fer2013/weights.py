"""Trained networks as safetensors files that say how they came to be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from .data import CLASSES
from .model import BaseCNN

#: The base network that comes with the package.
SHIPPED = Path(__file__).with_name("base.safetensors")

_KEY = "fer2013"
# Half precision halves the file; accuracy is always measured on what the file holds. Small
# tensors (BatchNorm's statistics, biases) stay as they are.
_SMALL = 1024


def compact(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with its large tensors in half precision."""
    return {
        name: (x.half() if x.is_floating_point() and x.numel() > _SMALL else x).contiguous()
        for name, x in state.items()
    }


def save(state: dict[str, Tensor], facts: dict[str, Any], path: Path) -> None:
    """Write a network's weights and the facts of its training to one file.

    Args:
        state: the network's state dict.
        facts: what a reader wants to know, as JSON types.
        path: the file, replaced if it is there.
    """
    facts = {**facts, "classes": CLASSES}
    content = safetensors_bytes(compact(state), metadata={_KEY: json.dumps(facts, sort_keys=True)})
    part = path.with_suffix(".part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_facts(path: Path = SHIPPED) -> dict[str, Any]:
    """Return what :func:`save` was told about a network.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no weights file of this package.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    if _KEY not in metadata:
        raise ValueError(f"{path} was not written by 'python -m fer2013 train'")
    facts: dict[str, Any] = json.loads(metadata[_KEY])
    return facts


def load(path: Path = SHIPPED) -> BaseCNN:
    """Return a trained network in evaluation mode, in float32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no weights file of this package, or of another network.
    """
    facts = read_facts(path)
    if tuple(facts["classes"]) != CLASSES:
        raise ValueError(f"{path} orders the classes {facts['classes']}, expected {CLASSES}")
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    model = BaseCNN()
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} holds the weights of another network: {error}") from error
    return model.to(torch.float32).eval()
