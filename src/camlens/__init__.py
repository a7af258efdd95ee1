"""Where in this image did the network find its evidence, and is that claim true?"""

import importlib
from typing import TYPE_CHECKING, Any

from . import heatmap, layers, methods, rectifiers, render, taps, targets
from .cam_explainers import (
    CAM,
    EigenCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    XGradCAM,
)
from .contact_sheet import sheet
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
    "render",
    "sheet",
    "taps",
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
