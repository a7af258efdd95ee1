"""Where in this image did the network find its evidence, and is that claim true?"""

import importlib
from typing import TYPE_CHECKING, Any

from . import heatmap, layouts, methods, probe, render, targets
from .cams import (
    CAM,
    EigenCAM,
    EigenGradCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    XGradCAM,
)
from .concept_maps import Concepts
from .concepts import DeepFeatureFactorization
from .explainers import (
    Attribution,
    Explainer,
    GradientAttribution,
    LayerAttribution,
    LayerExplainer,
)
from .explanation import Explanation
from .full_grad import FullGrad
from .image_gradients import Deconvnet, GuidedBackprop, GuidedGradCAM, Saliency
from .layer_changes import AblationCAM, LayerIntegratedGradients
from .layers import Layer, find_layers
from .paths import ExpectedGradients, IntegratedGradients, PathAttribution
from .perturbations import RISE, Occlusion, Perturbation
from .registration import Registration
from .render import contours, overlay, sheet, slices
from .score_cam import ScoreCAM
from .smooth_grad import SmoothGrad

if TYPE_CHECKING:
    from . import dataset as dataset
    from . import faces as faces
    from . import faithfulness as faithfulness
    from . import loading as loading
    from . import regions as regions
    from . import report as report

__version__ = "0.1.0"

#: Sub-packages that are loaded when they are first used.
_ON_DEMAND = ("dataset", "faces", "faithfulness", "loading", "regions", "report")

__all__ = [
    "CAM",
    "RISE",
    "AblationCAM",
    "Attribution",
    "Concepts",
    "Deconvnet",
    "DeepFeatureFactorization",
    "EigenCAM",
    "EigenGradCAM",
    "ExpectedGradients",
    "Explainer",
    "Explanation",
    "FullGrad",
    "GradCAM",
    "GradCAMPlusPlus",
    "GradientAttribution",
    "GuidedBackprop",
    "GuidedGradCAM",
    "HiResCAM",
    "IntegratedGradients",
    "Layer",
    "LayerAttribution",
    "LayerCAM",
    "LayerExplainer",
    "LayerIntegratedGradients",
    "Occlusion",
    "PathAttribution",
    "Perturbation",
    "Registration",
    "Saliency",
    "ScoreCAM",
    "SmoothGrad",
    "XGradCAM",
    "contours",
    "find_layers",
    "heatmap",
    "layouts",
    "methods",
    "overlay",
    "probe",
    "render",
    "sheet",
    "slices",
    "targets",
]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Load a sub-package when it is first used."""
        if name in _ON_DEMAND:
            return importlib.import_module(f".{name}", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        """List the public names, sub-packages that are not loaded yet too."""
        return sorted({*globals(), *_ON_DEMAND})
