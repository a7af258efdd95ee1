"""Heatmaps that explain a network's score for an image, and tests of whether they are faithful."""

import importlib
from typing import TYPE_CHECKING, Any

from . import heatmap, layouts, methods, probe, render, targets
from .concept_maps import Concepts
from .explainers import (
    attention,
    cams,
    concepts,
    full_grad,
    image_gradients,
    layer_changes,
    legrad,
    paths,
    perturbations,
    relevance,
    score_cam,
    smooth_grad,
)
from .explainers.attention import *
from .explainers.base import Attribution, Explainer
from .explainers.cams import *
from .explainers.concepts import *
from .explainers.full_grad import *
from .explainers.image_gradients import *
from .explainers.layer_changes import *
from .explainers.layer_explainer import LayerAttribution, LayerExplainer
from .explainers.legrad import *
from .explainers.paths import *
from .explainers.perturbations import *
from .explainers.relevance import *
from .explainers.score_cam import *
from .explainers.smooth_grad import *
from .explanation import Explanation
from .layers import Layer, find_layers
from .registration import Registration
from .render import contours, overlay, sheet, slices

if TYPE_CHECKING:
    from . import dataset as dataset
    from . import faces as faces
    from . import faithfulness as faithfulness
    from . import loading as loading
    from . import regions as regions
    from . import report as report
    from . import testing as testing

__version__ = "0.1.0"

#: Sub-packages that are loaded when they are first used.
_ON_DEMAND = ("dataset", "faces", "faithfulness", "loading", "regions", "report", "testing")

__all__ = [
    "Attribution",
    "Concepts",
    "Explainer",
    "Explanation",
    "Layer",
    "LayerAttribution",
    "LayerExplainer",
    "Registration",
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
# Each explainer is named once, in the module that holds it.
__all__ += attention.__all__
__all__ += cams.__all__
__all__ += concepts.__all__
__all__ += full_grad.__all__
__all__ += image_gradients.__all__
__all__ += layer_changes.__all__
__all__ += legrad.__all__
__all__ += paths.__all__
__all__ += perturbations.__all__
__all__ += relevance.__all__
__all__ += score_cam.__all__
__all__ += smooth_grad.__all__


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Load a sub-package when it is first used."""
        if name in _ON_DEMAND:
            return importlib.import_module(f".{name}", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        """List the public names, including sub-packages that are not loaded yet."""
        return sorted({*globals(), *_ON_DEMAND})
