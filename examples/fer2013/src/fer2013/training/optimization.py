"""Trainable layers, learning rates, schedules and the loss of a configuration."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from ..configurations.config import Config
from ..data.faces import CLASSES
from ..networks.architectures import EmotionVGG

# ReduceLROnPlateau halves the rate after more than this many epochs without improvement.
_PLATEAU_FACTOR, _PLATEAU_PATIENCE = 0.5, 3


def freeze(model: nn.Module, config: Config) -> None:
    """Exclude the first of VGG19's feature modules from training."""
    if isinstance(model, EmotionVGG):
        model.features[: config.frozen].requires_grad_(requires_grad=False)


def loss(config: Config, labels: np.ndarray) -> nn.CrossEntropyLoss:
    r"""Return the cross-entropy, with class weights :math:`w_c = N / (7 n_c)` if configured.

    Args:
        config: the configuration.
        labels: (N,) classes of the training images; each class occurs.
    """
    weights = None
    if config.class_weights:
        counts = torch.from_numpy(np.bincount(labels, minlength=len(CLASSES)))
        weights = len(labels) / (len(CLASSES) * counts).float()
    return nn.CrossEntropyLoss(weight=weights, label_smoothing=config.label_smoothing)


def parameter_groups(
    model: nn.Module, config: Config, *, continued: bool = False
) -> list[dict[str, Any]]:
    """Return the trainable parameters with their learning rates, earlier blocks first.

    Each block further from the head has ``block_rate`` times the rate, unless the initial weights
    are random or from an earlier run on FER2013 (``continued``).
    """
    factor = 1.0 if continued or config.weights == "none" else config.block_rate
    parts: list[nn.Module] = [model]
    if isinstance(model, EmotionVGG) and factor != 1:
        parts = [*model.blocks(), model.head]
    groups = []
    for steps, part in zip(range(len(parts) - 1, -1, -1), parts, strict=True):
        if trained := [p for p in part.parameters() if p.requires_grad]:
            groups.append({"params": trained, "lr": config.rate * factor**steps})
    return groups


def optimizer(
    model: nn.Module, config: Config, *, continued: bool = False
) -> torch.optim.Optimizer:
    """Return the optimiser; see :func:`parameter_groups`."""
    groups = parameter_groups(model, config, continued=continued)
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, config.rate, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        groups,
        config.rate,
        config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
    )


def schedule(optimizer: torch.optim.Optimizer, config: Config, steps: int) -> dict[str, Any] | None:
    """Return the learning rate schedule in Lightning's format; ``steps`` is the total number."""
    if config.schedule == "none":
        return None
    if config.schedule == "plateau":
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=_PLATEAU_FACTOR, patience=_PLATEAU_PATIENCE
        )
        # After the last step of each epoch: Lightning's "epoch" comes after the checkpoint, so a
        # resumed run would miss one update.
        every = max(1, steps // config.epochs)
        return {
            "scheduler": plateau,
            "monitor": "val_loss",
            "interval": "step",
            "frequency": every,
        }
    cycle_momentum = config.schedule == "one-cycle"
    return one_cycle(optimizer, steps, config.warm_up, cycle_momentum=cycle_momentum)


def one_cycle(
    optimizer: torch.optim.Optimizer, steps: int, warm_up: float, *, cycle_momentum: bool
) -> dict[str, Any]:
    """Return torch's OneCycleLR in Lightning's format.

    Args:
        optimizer: its groups have their maximum rates.
        steps: total number of steps.
        warm_up: fraction of the steps in which the rates rise.
        cycle_momentum: whether the momentum moves in the opposite direction.

    Raises:
        ValueError: there is only one step.
    """
    if steps < 2:
        raise ValueError(f"expected at least 2 training steps, got {steps}: train on more images")
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        [group["lr"] for group in optimizer.param_groups],
        steps,
        pct_start=max(warm_up, 1.5 / steps),  # torch divides by the rising steps minus one
        cycle_momentum=cycle_momentum,
    )
    return {"scheduler": cycle, "interval": "step"}
