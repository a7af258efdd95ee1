"""Faces explained by every method, and the explanations as columns of a contact sheet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

import camlens

from .photos import SHOWN

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


def columns(backgrounds: Tensor, explained: dict[str, camlens.Explanation]) -> list[Tensor]:
    """Draw explanations: heatmaps over the faces, gradients in grey.

    A face whose map has no evidence is shown as it is, since a tint of no heat looks like heat
    that is the same everywhere.

    Args:
        backgrounds: (N, 3, S, S) uint8, the faces as they are shown.
        explained: of N faces and K targets each, by the name of the method.

    Returns:
        For each method (N, K, 3, S, S) uint8.
    """
    drawn = []
    for explanation in explained.values():
        if explanation.gradients is None:
            heat = camlens.heatmap.scale(camlens.heatmap.resize(explanation.raw, (SHOWN, SHOWN)))
            picture = camlens.contours(camlens.overlay(backgrounds, heat), heat)
            evidence = explanation.evidence[:, :, None, None, None]
            drawn.append(picture.where(evidence, backgrounds.unsqueeze(1)))
        else:
            drawn.append(enlarged(camlens.render.signed(explanation.gradients)))
    return drawn


def enlarged(pictures: Tensor) -> Tensor:
    """Enlarge (N, K, 3, h, w) uint8 pictures so that their pixels stay visible."""
    large = interpolate(pictures.flatten(0, 1), (SHOWN, SHOWN), mode="nearest")
    return large.view(*pictures.shape[:2], *large.shape[1:])


def as_pictures(images: Tensor) -> Tensor:
    """Return (N, 1, 48, 48) images in [0, 1] as (N, 3, S, S) uint8."""
    rgb = (images * 255).round().to(torch.uint8).expand(-1, 3, -1, -1)
    return enlarged(rgb.unsqueeze(1)).squeeze(1)
