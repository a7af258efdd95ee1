"""The four explained methods, and their pictures as columns of a contact sheet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import camlens

from ..data.photographs import SHOWN


def explainers(model: nn.Module, layer: str) -> dict[str, camlens.Explainer]:
    """Return the four methods by their displayed names."""
    return {
        "Grad-CAM": camlens.GradCAM(model, layer),
        "Grad-CAM++": camlens.GradCAMPlusPlus(model, layer),
        "guided backprop": camlens.GuidedBackprop(model),
        "guided Grad-CAM": camlens.GuidedGradCAM(model, layer),
    }


def where(explanation: camlens.Explanation) -> str:
    """Describe a map's layer and grid."""
    h, w = explanation.grid
    cell = explanation.size[0] / h
    return f"at {', '.join(explanation.layers)}, {h}x{w} cells of {cell:.3g} pixels"


def columns(backgrounds: Tensor, explained: dict[str, camlens.Explanation]) -> list[Tensor]:
    """Draw heatmaps over the faces, and gradients in grey.

    Maps without evidence are not drawn, as the colour of zero heat over the whole face would look
    like heat.

    Args:
        backgrounds: (N, 3, S, S) uint8, the displayed faces.
        explained: explanations of N images and K targets by method.

    Returns:
        (N, K, 3, S, S) uint8 for each method.
    """
    drawn = []
    for explanation in explained.values():
        if explanation.gradients is None:
            heat = camlens.heatmap.scale(camlens.heatmap.resize(explanation.raw, (SHOWN, SHOWN)))
            picture = camlens.contours(camlens.overlay(backgrounds, heat), heat)
            evidence = explanation.evidence[:, :, None, None, None]
            drawn.append(picture.where(evidence, backgrounds.unsqueeze(1)))
        else:
            drawn.append(_enlarged(camlens.render.signed(explanation.gradients)))
    return drawn


def beside(backgrounds: list[Tensor], drawn: list[Tensor]) -> Tensor:
    """Arrange columns for :func:`camlens.sheet`.

    Args:
        backgrounds: columns that are the same for all targets, each (N, 3, S, S) uint8.
        drawn: further columns, each (N, K, 3, S, S) uint8.

    Returns:
        (N * K, columns, 3, S, S) uint8, with a row for each image and target.
    """
    same = [picture.unsqueeze(1).expand_as(drawn[0]) for picture in backgrounds]
    return torch.stack([*same, *drawn], dim=2).flatten(0, 1)


def as_pictures(images: Tensor) -> Tensor:
    """Convert (N, 1, 48, 48) images in [0, 1] to (N, 3, S, S) uint8."""
    return _enlarged((images * 255).round().to(torch.uint8).expand(-1, 3, -1, -1))


def _enlarged(pictures: Tensor) -> Tensor:
    """Enlarge (..., 48, 48) uint8 pictures to (..., S, S) without interpolation."""
    factor = SHOWN // pictures.shape[-1]
    return pictures.repeat_interleave(factor, -2).repeat_interleave(factor, -1)
