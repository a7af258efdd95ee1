"""The weights that a run starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ..configurations.config import Config
from ..configurations.recipes import CONFIGS
from ..networks import imagenet, weights
from ..networks.architectures import EmotionVGG

#: The weights, and the run's folder, of the command of that name.
PRETRAIN = "pretrain"


def initialise(model: nn.Module, config: Config, runs: Path) -> dict[str, Any]:
    """Give a network the weights that its configuration starts from.

    Args:
        model: as :func:`fer2013.networks.architectures.build` makes it.
        config: its ``weights`` are "none", "imagenet", "pretrain" (what that command writes), a
            configuration's name, or a file: one that this package wrote, or torchvision's.
        runs: the folder of the other runs.

    Returns:
        What is known of them: ``started_from``, the facts of an earlier run of this package, or
        ``pretrained_on`` and ``weights_sha256`` of the file.

    Raises:
        FileNotFoundError: they are not there, and the message says how to get them.
        ValueError: they are damaged, or another network's.
    """
    start = config.weights
    if start == "none":
        return {}
    if start in CONFIGS or start == PRETRAIN:
        name, command = start, f"train {start}"
        if start == PRETRAIN:
            name, command = config.network, "pretrain FOLDER"
        path = runs / start / f"{name}.safetensors"
        if not path.is_file():
            raise FileNotFoundError(
                f"{config.name!r} starts from {start!r}, and there is no {path}: run "
                f"'python -m fer2013 {command}' first, or give --weights FILE"
            )
    elif start != "imagenet":
        path = Path(start)
        if not path.is_file():
            raise FileNotFoundError(
                f"expected the weights none, imagenet, {PRETRAIN} or a file, and there is no file "
                f"{path}"
            )
    if isinstance(model, EmotionVGG) and (start == "imagenet" or not weights.is_ours(path)):
        given = None if start == "imagenet" else path
        return imagenet.load_into(model, config.network, given)
    if start in ("imagenet", PRETRAIN):
        raise ValueError("the base network has no pretrained weights: start it with --weights none")
    facts = weights.read_facts(path)
    weights.load_into(model, path)
    return {"started_from": facts}


def continues(config: Config) -> bool:
    """Return whether a configuration starts from the weights of an earlier run."""
    path = Path(config.weights)
    return config.weights in CONFIGS or (path.is_file() and weights.is_ours(path))
