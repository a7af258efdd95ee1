"""The explainers by family, and a layer of ``Small`` that each can explain."""

from __future__ import annotations

from typing import Any

import torch
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
TAILS = [camlens.AblationCAM, camlens.DeepFeatureFactorization, camlens.LayerIntegratedGradients]
CAMS = [*LAYER_ATTRIBUTIONS, camlens.EigenCAM, camlens.EigenGradCAM]
IMAGE_GRADIENTS = [camlens.Saliency, camlens.Deconvnet, camlens.GuidedBackprop]
PERTURBATIONS = [camlens.Occlusion, camlens.RISE, camlens.ScoreCAM]
PATHS = [camlens.IntegratedGradients, camlens.ExpectedGradients, camlens.SmoothGrad]
#: They need a transformer, such as ``tests.nets.small_vit``; ``Small`` is an error.
ATTENTION = [camlens.LeGrad, camlens.GenericAttention, camlens.AttentionRollout]
RELEVANCE = [camlens.LRP, camlens.AttnLRP]
#: Those made for transformers: tests/test_guarantees_of_transformers.py.
OF_TRANSFORMERS = [*ATTENTION, camlens.AttnLRP]
#: They run the model without gradients, or know none to train with.
WITHOUT_GRAPH = [camlens.EigenCAM, camlens.EigenGradCAM, *PERTURBATIONS, *TAILS, *RELEVANCE]
#: All but CAM, which is not defined for every model.
ALL = [*CAMS, *TAILS, *IMAGE_GRADIENTS, camlens.GuidedGradCAM, *PERTURBATIONS, *PATHS, *RELEVANCE]
EVERY = [*ALL, camlens.CAM]

#: Few passes, so that the tests are quick.
_FEW: dict[type[camlens.Explainer], dict[str, Any]] = {
    camlens.RISE: {"masks": 30, "center": True},
    camlens.IntegratedGradients: {"steps": 4},
    camlens.ExpectedGradients: {"samples": 4},
    camlens.SmoothGrad: {"samples": 3},
    camlens.LayerIntegratedGradients: {"steps": 4},
    camlens.DeepFeatureFactorization: {"concepts": 2, "signed": True},
}


def made(
    explainer: type[camlens.Explainer], model: nn.Module, layer: str | None = None, **options: Any
) -> camlens.Explainer:
    """Make an explainer of a layer, or of the images where it explains those."""
    options = {**_FEW.get(explainer, {}), **options}
    if explainer is camlens.SmoothGrad:
        graph = {name: options.pop(name) for name in ("create_graph",) if name in options}
        return explainer(camlens.Saliency(model, **graph), **options)
    if explainer is camlens.ExpectedGradients:
        return explainer(model, torch.tensor([0.0, 0.5]).view(2, 1, 1, 1), **options)
    if not issubclass(explainer, camlens.LayerExplainer):
        return explainer(model, **options)
    if layer is None:
        layer = "act" if explainer is camlens.CAM else "conv2"
    return explainer(model, layer, **options)
