"""The four methods that the pictures show, and what they say as the columns of a sheet."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

import camlens

from ..data.photographs import SHOWN


def explainers(model: nn.Module, layer: str) -> dict[str, camlens.Explainer]:
    """Return the four methods that the pictures show, by their names."""
    return {
        "Grad-CAM": camlens.GradCAM(model, layer),
        "Grad-CAM++": camlens.GradCAMPlusPlus(model, layer),
        "guided backprop": camlens.GuidedBackprop(model),
        "guided Grad-CAM": camlens.GuidedGradCAM(model, layer),
    }


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


def beside(backgrounds: list[Tensor], drawn: list[Tensor]) -> Tensor:
    """Put the columns of a sheet side by side.

    Args:
        backgrounds: of each column that is the same for all targets (N, 3, S, S) uint8.
        drawn: as :func:`columns` returns them.

    Returns:
        (N * K, columns, 3, S, S) uint8, a row for each face and target, as
        :func:`camlens.sheet` takes them.
    """
    same = [picture.unsqueeze(1).expand_as(drawn[0]) for picture in backgrounds]
    return torch.stack([*same, *drawn], dim=2).flatten(0, 1)


def enlarged(pictures: Tensor) -> Tensor:
    """Enlarge (N, K, 3, h, w) uint8 pictures so that their pixels stay visible."""
    large = interpolate(pictures.flatten(0, 1), (SHOWN, SHOWN), mode="nearest")
    return large.view(*pictures.shape[:2], *large.shape[1:])


def as_pictures(images: Tensor) -> Tensor:
    """Return (N, 1, 48, 48) images in [0, 1] as (N, 3, S, S) uint8."""
    rgb = (images * 255).round().to(torch.uint8).expand(-1, 3, -1, -1)
    return enlarged(rgb.unsqueeze(1)).squeeze(1)
