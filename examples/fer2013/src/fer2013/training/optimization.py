"""What a configuration trains, at which rates, by which loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..configurations.config import Config
from ..data.faces import CLASSES
from ..networks.architectures import EmotionVGG

# ReduceLROnPlateau: half the rate when more than this many epochs in a row had no better
# validation loss.
_PLATEAU_FACTOR, _PLATEAU_PATIENCE = 0.5, 3


def freeze(model: nn.Module, config: Config) -> None:
    """Keep the first of VGG19's feature modules as they are."""
    if isinstance(model, EmotionVGG):
        model.features[: config.frozen].requires_grad_(requires_grad=False)


def class_weights(labels: np.ndarray) -> Tensor:
    r"""Return the balanced weights of the classes, :math:`w_c = N / (7 n_c)`.

    Args:
        labels: (N,) class ids; each class must be there, as :func:`fer2013.data.splits.divide`
            checks.

    Returns:
        (7,) float32.
    """
    counts = torch.from_numpy(np.bincount(labels, minlength=len(CLASSES)))
    return len(labels) / (len(CLASSES) * counts).float()


def loss(config: Config, labels: np.ndarray) -> nn.CrossEntropyLoss:
    """Return a configuration's loss.

    Args:
        config: the configuration.
        labels: (N,) classes of the training faces.
    """
    weights = class_weights(labels) if config.class_weights else None
    return nn.CrossEntropyLoss(weight=weights, label_smoothing=config.label_smoothing)


def parameter_groups(
    model: nn.Module, config: Config, *, continued: bool = False
) -> list[dict[str, Any]]:
    """Return what is trained, with its learning rates, earlier blocks first.

    Each block further from the head has ``block_rate`` times the rate, where the weights come from
    elsewhere: neither random nor of an earlier run on the same faces, which is what ``continued``
    says.
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
    """Return a configuration's optimiser of what is not frozen; see :func:`parameter_groups`."""
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
    """Return a configuration's learning rate schedule as Lightning takes it.

    Args:
        optimizer: as :func:`optimizer` returns it.
        config: the configuration.
        steps: how many steps there are in all.
    """
    if config.schedule == "none":
        return None
    if config.schedule == "plateau":
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=_PLATEAU_FACTOR, patience=_PLATEAU_PATIENCE
        )
        # After the last step of each epoch. Lightning's "epoch" would come after the checkpoint is
        # saved, and a resumed run would have forgotten one.
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
    """Return one cycle of each group's learning rate, as Lightning takes it.

    Args:
        optimizer: its groups have their highest rates.
        steps: how many steps there are in all.
        warm_up: part of them in which the rates climb.
        cycle_momentum: whether the momentum moves the other way.

    Raises:
        ValueError: there is but one step.
    """
    if steps < 2:
        raise ValueError(f"expected at least 2 training steps, got {steps}: train on more images")
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        [group["lr"] for group in optimizer.param_groups],
        steps,
        # torch divides by the steps of the climb but one.
        pct_start=max(warm_up, 1.5 / steps),
        cycle_momentum=cycle_momentum,
    )
    return {"scheduler": cycle, "interval": "step"}
