"""Where in this image did the network find its evidence, and is that claim true?"""

from . import heatmap, methods, render, targets
from .cams import CAM, EigenCAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from .contact_sheet import sheet
from .explainers import (
    Attribution,
    Explainer,
    GradientAttribution,
    LayerAttribution,
    LayerExplainer,
)
from .explanation import Explanation
from .image_gradients import Deconvnet, GuidedBackprop, GuidedGradCAM, Saliency
from .layers import Layer, find_layers
from .render import contours, overlay

__version__ = "0.1.0"

__all__ = [
    "CAM",
    "Attribution",
    "Deconvnet",
    "EigenCAM",
    "Explainer",
    "Explanation",
    "GradCAM",
    "GradCAMPlusPlus",
    "GradientAttribution",
    "GuidedBackprop",
    "GuidedGradCAM",
    "HiResCAM",
    "Layer",
    "LayerAttribution",
    "LayerCAM",
    "LayerExplainer",
    "Saliency",
    "XGradCAM",
    "contours",
    "find_layers",
    "heatmap",
    "methods",
    "overlay",
    "render",
    "sheet",
    "targets",
]
