"""The initial weights of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ..configurations.config import Config
from ..configurations.recipes import CONFIGS
from ..networks import imagenet, weights
from ..networks.architectures import EmotionVGG

#: Where training runs are kept.
RUNS = Path("runs")

#: The value of ``Config.weights``, and the run's folder, of the command ``pretrain``.
PRETRAIN = "pretrain"


def initialise(model: nn.Module, config: Config, runs: Path = RUNS) -> dict[str, Any]:
    """Load the initial weights that a configuration names.

    Args:
        model: the network, as :func:`fer2013.networks.architectures.build` creates it.
        config: its ``weights`` are "none", "imagenet", "pretrain", a configuration's name, or a
            file of this package or of torchvision.
        runs: the folder of other runs.

    Returns:
        ``started_from``, the description of an earlier run's training; or ``pretrained_on`` and
        ``weights_sha256`` of the file; empty for random weights.

    Raises:
        FileNotFoundError: there is no such file; the message says how to get it.
        ValueError: the file is damaged, or its weights belong to another architecture.
    """
    start = config.weights
    if start == "none":
        return {}
    path = None if start == "imagenet" else _locate(config, runs)
    if isinstance(model, EmotionVGG) and (path is None or not weights.is_ours(path)):
        return imagenet.load_into(model, config.network, path)
    if path is None or start == PRETRAIN:
        raise ValueError("the base network has no pretrained weights: use --weights none")
    weights.load_into(model, path)
    return {"started_from": weights.read_facts(path)}


def _locate(config: Config, runs: Path) -> Path:
    start = config.weights
    if start in CONFIGS or start == PRETRAIN:
        name, command = start, f"train {start}"
        if start == PRETRAIN:
            name, command = config.network, "pretrain FOLDER"
        path = runs / start / f"{name}.safetensors"
        if not path.is_file():
            raise FileNotFoundError(
                f"{config.name!r} starts from {start!r}, but {path} does not exist: run "
                f"'python -m fer2013 {command}' first, or pass --weights FILE"
            )
    else:
        path = Path(start)
        if not path.is_file():
            raise FileNotFoundError(
                f"expected --weights none, imagenet, {PRETRAIN} or a file; there is no file {path}"
            )
    return path


def continues(config: Config) -> bool:
    """Return whether a configuration starts from the weights of an earlier run."""
    path = Path(config.weights)
    return config.weights in CONFIGS or (path.is_file() and weights.is_ours(path))
