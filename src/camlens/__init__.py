"""Where in this image did the network find its evidence, and is that claim true?"""

from . import heatmap, layers, methods, render, taps, targets
from .explain import (
    CAM,
    Deconvnet,
    EigenCAM,
    Explainer,
    GradCAM,
    GradCAMPlusPlus,
    GuidedBackprop,
    GuidedGradCAM,
    HiResCAM,
    InputFamily,
    InputGradient,
    LayerCAM,
    XGradCAM,
)
from .explanation import Explanation
from .layers import Layer, find_layers
from .render import contours, overlay, sheet

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
    "render",
    "sheet",
    "taps",
    "targets",
]
