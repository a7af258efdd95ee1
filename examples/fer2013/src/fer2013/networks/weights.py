"""Trained networks as safetensors files with a description of their training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn
from torchvision.transforms import v2

from ..configurations.config import Config, from_dict
from ..configurations.recipes import CONFIGS
from ..data.faces import CLASSES, SIDE
from ..files import write_bytes
from . import architectures

#: The base network that comes with the package.
SHIPPED = Path(__file__).with_name("base.safetensors")

_KEY = "fer2013"
# Half precision halves the file; accuracy is measured with the stored values. Small tensors
# (BatchNorm's statistics, biases) keep their precision.
_SMALL = 1024


def compact(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with its large tensors in half precision."""
    return {
        name: (x.half() if x.is_floating_point() and x.numel() > _SMALL else x).contiguous()
        for name, x in state.items()
    }


def save(state: dict[str, Tensor], facts: dict[str, Any], path: Path) -> None:
    """Write a state dict, with a description of its training as JSON types."""
    facts = {**facts, "classes": CLASSES}
    content = safetensors_bytes(compact(state), metadata={_KEY: json.dumps(facts, sort_keys=True)})
    write_bytes(path, content)


def read_facts(path: Path = SHIPPED) -> dict[str, Any]:
    """Return the description of a network's training.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: :func:`save` did not write it.
    """
    if path.is_dir():
        raise ValueError(f"expected a weights file, got the folder {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from error
    if _KEY not in metadata:
        raise ValueError(f"{path} was not written by 'python -m fer2013 train'")
    facts: dict[str, Any] = json.loads(metadata[_KEY])
    return facts


def is_ours(path: Path) -> bool:
    """Return whether :func:`save` wrote a file."""
    try:
        read_facts(path)
    except ValueError:
        return False
    return True


def config_of(facts: dict[str, Any]) -> Config:
    """Return the configuration in a description of a training.

    Raises:
        ValueError: its fields are not those of this version.
    """
    # Files from before there was more than one network name its class.
    if facts.get("network") == "BaseCNN":
        return CONFIGS["base"]
    try:
        return from_dict(facts["config"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"the configuration is not one of this version: {error}") from error


def load(path: Path = SHIPPED) -> nn.Module:
    """Return a trained network in evaluation mode, in float32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: :func:`save` did not write it, or its weights do not fit its configuration.
    """
    facts = read_facts(path)
    if tuple(facts["classes"]) != CLASSES:
        raise ValueError(f"{path} orders the classes {facts['classes']}, expected {CLASSES}")
    model = architectures.build(config_of(facts))
    load_into(model, path)
    return model.to(torch.float32).eval()


def load_into(model: nn.Module, path: Path) -> None:
    """Load the weights of a file that :func:`save` wrote into a network.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or its weights belong to another architecture.
    """
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from error
    if found := mismatch(model, state):
        raise ValueError(f"{path} has the weights of another architecture: {found}")
    model.load_state_dict(state)


def mismatch(model: nn.Module, state: dict[str, Tensor]) -> str:
    """Describe why a state dict does not fit a model; empty if it does."""
    own = model.state_dict()
    found = [
        f"{len(names)} tensors {what}, such as {min(names)}"
        for names, what in (
            (own.keys() - state.keys(), "are missing"),
            (state.keys() - own.keys(), "are unknown"),
            (
                {k for k in own.keys() & state.keys() if own[k].shape != state[k].shape},
                "have another shape",
            ),
        )
        if names
    ]
    return "; ".join(found)


def with_transform() -> tuple[nn.Module, v2.Compose, tuple[str, ...]]:
    """Return the base network, its transform and class names, for ``camlens --model``.

    The transform converts a picture of a face to 48 x 48 greyscale pixels in [0, 1].
    """
    floats = v2.ToDtype(torch.float32, scale=True)
    steps = [v2.PILToTensor(), v2.Grayscale(), v2.Resize((SIDE, SIDE)), floats]
    return load(), v2.Compose(steps), CLASSES
