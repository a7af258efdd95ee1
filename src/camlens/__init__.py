"""Where in this image did the network find its evidence, and is that claim true?"""

from . import heatmap, layers, methods, rectifiers, regions, render, slices, taps, targets
from .cam_explainers import (
    CAM,
    EigenCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    XGradCAM,
)
from .explain import Explainer
from .explanation import Explanation
from .gradient_explainers import (
    Deconvnet,
    GuidedBackprop,
    GuidedGradCAM,
    InputFamily,
    InputGradient,
)
from .layers import Layer, find_layers
from .render import contours, overlay
from .sheets import sheet

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
    "slices",
    "taps",
    "targets",
]
