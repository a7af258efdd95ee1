"""Where in this image did the network find its evidence, and is that claim true?"""

from . import heatmap, methods, render, targets
from .contact_sheet import sheet
from .explainers import (
    CAM,
    Attribution,
    Deconvnet,
    EigenCAM,
    Explainer,
    GradCAM,
    GradCAMPlusPlus,
    GradientAttribution,
    GuidedBackprop,
    GuidedGradCAM,
    HiResCAM,
    LayerAttribution,
    LayerCAM,
    LayerExplainer,
    Saliency,
    XGradCAM,
)
from .explanation import Explanation
from .render import contours, overlay

__version__ = "0.1.0"

__all__ = [
    "CAM",
    "Deconvnet",
    "EigenCAM",
    "Explainer",
    "Explanation",
    "GradCAM",
    "GradCAMPlusPlus",
    "GuidedBackprop",
    "GuidedGradCAM",
    "HiResCAM",
    "InputFamily",
    "InputGradient",
    "Layer",
    "LayerCAM",
    "XGradCAM",
    "contours",
    "find_layers",
    "heatmap",
    "layers",
    "methods",
    "overlay",
    "rectifiers",
    "regions",
    "render",
    "sheet",
    "taps",
    "targets",
]
