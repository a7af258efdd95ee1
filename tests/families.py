"""The explainers by family, and a layer of ``Small`` that each can explain."""

from __future__ import annotations

from typing import Any

from torch import nn

import camlens

LAYER_ATTRIBUTIONS = [
    camlens.GradCAM,
    camlens.GradCAMPlusPlus,
    camlens.HiResCAM,
    camlens.LayerCAM,
    camlens.XGradCAM,
]
#: Those that run the model from the layer on; they cannot be trained with.
TAILS = [camlens.AblationCAM, camlens.LayerIntegratedGradients]
CAMS = [*LAYER_ATTRIBUTIONS, camlens.EigenCAM, camlens.EigenGradCAM]
IMAGE_GRADIENTS = [camlens.Saliency, camlens.Deconvnet, camlens.GuidedBackprop]
#: All but CAM, which is not defined for every model.
ALL = [*CAMS, *IMAGE_GRADIENTS, camlens.GuidedGradCAM]
EVERY = [*ALL, camlens.CAM]


def made(
    explainer: type[camlens.Explainer], model: nn.Module, layer: str | None = None, **options: Any
) -> camlens.Explainer:
    """Make an explainer of a layer, or of the images where it explains those."""
    if explainer in IMAGE_GRADIENTS:
        return explainer(model, **options)
    if layer is None:
        layer = "act" if explainer is camlens.CAM else "conv2"
    return explainer(model, layer, **options)
