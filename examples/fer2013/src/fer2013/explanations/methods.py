"""Faces explained by the four methods that the pictures show."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

import camlens

_BATCH = 64


def explainers(model: nn.Module, layer: str) -> dict[str, camlens.Explainer]:
    """Return the four methods that the pictures show, by their names."""
    return {
        "Grad-CAM": camlens.GradCAM(model, layer),
        "Grad-CAM++": camlens.GradCAMPlusPlus(model, layer),
        "guided backprop": camlens.GuidedBackprop(model),
        "guided Grad-CAM": camlens.GuidedGradCAM(model, layer),
    }


def explain_all(
    model: nn.Module, layer: str, images: Tensor, targets: Tensor
) -> dict[str, camlens.Explanation]:
    """Explain faces by the four methods that the pictures show.

    Args:
        model: in evaluation mode.
        layer: where Grad-CAM looks.
        images: (N, 1, 48, 48) in [0, 1].
        targets: (N, K) class ids.

    Returns:
        The explanations by the name of the method.
    """
    return {
        name: in_batches(one, images, targets) for name, one in explainers(model, layer).items()
    }


def in_batches(
    explainer: Callable[..., camlens.Explanation],
    images: Tensor,
    targets: Tensor,
    *,
    gradients: bool = True,
) -> camlens.Explanation:
    """Explain any number of faces as one explanation.

    Args:
        explainer: (images, targets=...) -> explanation.
        images: (N, 1, 48, 48) in [0, 1].
        targets: (N, K) class ids.
        gradients: whether to keep those, which are as large as K times the images.
    """
    parts = []
    for some, wanted in zip(images.split(_BATCH), targets.split(_BATCH), strict=True):
        part = explainer(some, targets=wanted)
        parts.append(part if gradients else dataclasses.replace(part, gradients=None))
    return dataclasses.replace(
        parts[0],
        raw=torch.cat([part.raw for part in parts]),
        scores=torch.cat([part.scores for part in parts]),
        targets=torch.cat([part.targets for part in parts]),
        gradients=_joined([part.gradients for part in parts]),
        outputs=_joined([part.outputs for part in parts]),
    )


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    tensors = [part for part in parts if part is not None]
    return torch.cat(tensors) if tensors else None


def take(explanation: camlens.Explanation, which: Tensor, targets: int) -> camlens.Explanation:
    """Return the explanation of some faces, by their indices, and of their first targets."""
    faces = explanation[which]
    return dataclasses.replace(
        faces,
        raw=faces.raw[:, :targets],
        scores=faces.scores[:, :targets],
        targets=faces.targets[:, :targets],
        gradients=None if faces.gradients is None else faces.gradients[:, :targets],
    )


def where(explanation: camlens.Explanation) -> str:
    """Say at which layer a map was made, and how coarse it is."""
    h, w = explanation.grid
    cell = explanation.size[0] / h
    return f"at {', '.join(explanation.layers)}, {h}x{w} cells of {cell:.3g} pixels"
