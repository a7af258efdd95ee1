"""Trained networks as safetensors files that say how they came to be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn
from torchvision.transforms import v2

from ..configurations.config import Config, from_dict
from ..configurations.recipes import CONFIGS
from ..data.faces import CLASSES, SIDE
from ..files import write_whole
from . import architectures

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
    write_whole(path, content)


def read_facts(path: Path = SHIPPED) -> dict[str, Any]:
    """Return what :func:`save` was told about a network.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no weights file of this package.
    """
    if path.is_dir():
        raise ValueError(f"expected a file of weights, got the folder {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
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
    """Return the configuration that a network was trained with.

    Raises:
        ValueError: it is not one of this version.
    """
    # Files written before there was more than one network say so by its class's name.
    if facts.get("network") == "BaseCNN":
        return CONFIGS["base"]
    try:
        return from_dict(facts["config"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"the file's configuration is not one of this version: {error}") from error


def load(path: Path = SHIPPED) -> nn.Module:
    """Return a trained network in evaluation mode, in float32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no weights file of this package, or of another network.
    """
    facts = read_facts(path)
    if tuple(facts["classes"]) != CLASSES:
        raise ValueError(f"{path} orders the classes {facts['classes']}, expected {CLASSES}")
    model = architectures.build(config_of(facts))
    load_into(model, path)
    return model.to(torch.float32).eval()


def with_transform() -> tuple[nn.Module, v2.Compose, tuple[str, ...]]:
    """Return the base network, its transform and class names, as ``camlens --model`` takes them.

    The transform shrinks a picture that shows a face and little else to 48 x 48 grey pixels.
    """
    floats = v2.ToDtype(torch.float32, scale=True)
    steps = [v2.PILToTensor(), v2.Grayscale(), v2.Resize((SIDE, SIDE)), floats]
    return load(), v2.Compose(steps), CLASSES


def load_into(model: nn.Module, path: Path) -> None:
    """Give a network the weights of a file that :func:`save` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no weights file, or of another network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    if found := mismatch(model, state):
        raise ValueError(f"{path} holds the weights of another network: {found}")
    model.load_state_dict(state)


def mismatch(model: nn.Module, state: dict[str, Tensor]) -> str:
    """Return in words why weights are not a network's, or nothing if they are."""
    own = model.state_dict()
    lacking, foreign = own.keys() - state.keys(), state.keys() - own.keys()
    other = [name for name in own.keys() & state.keys() if own[name].shape != state[name].shape]
    found = [
        f"{len(names)} {what}, {min(names)} among them"
        for names, what in (
            (lacking, "tensors are missing"),
            (foreign, "are not its own"),
            (other, "have another shape"),
        )
        if names
    ]
    return "; ".join(found)
