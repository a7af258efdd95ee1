"""Conversion of a model's scores to probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

#: How a model's scores become probabilities, see :func:`probabilities`.
ACTIVATIONS = ("softmax", "sigmoid", "none")


def probabilities(outputs: Tensor, activation: str = "softmax") -> Tensor:
    """Turn (N, C) scores into (N, C) float32 probabilities.

    Args:
        outputs: (N, C) scores.
        activation: ``"softmax"`` for exclusive classes, ``"sigmoid"`` for independent labels,
            ``"none"`` if the outputs are probabilities already.

    Returns:
        (N, C). With ``"softmax"`` and C = 1 all values are NaN: a single output is the logit of a
        sigmoid or a regression, and the softmax of one number is always 1.

    Raises:
        ValueError: the activation is unknown.

    Example:
        >>> probabilities(torch.tensor([[0.0, 0.0]])).tolist()
        [[0.5, 0.5]]
        >>> single = torch.tensor([[0.0]])
        >>> probabilities(single).item(), probabilities(single, "sigmoid").item()
        (nan, 0.5)
    """
    check_activation(activation)
    values = outputs.float()
    if activation == "sigmoid":
        return values.sigmoid()
    if activation == "none":
        return values
    if values.shape[1] == 1:
        return torch.full_like(values, torch.nan)
    return values.softmax(dim=1)


def check_activation(activation: str) -> None:
    """Check the name of an activation.

    Raises:
        ValueError: the activation is unknown.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"expected activation to be one of {ACTIVATIONS}, got {activation!r}")
