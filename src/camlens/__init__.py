"""Heatmaps that explain a network's score for an image, and tests of whether they are faithful."""

import importlib
from typing import TYPE_CHECKING, Any

from . import explainers, heatmap, layouts, methods, probe, render, targets
from .concept_maps import Concepts
from .explainers import *
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
    "Concepts",
    "Explanation",
    "Layer",
    "Registration",
    "contours",
    "explainers",
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
__all__ += explainers.__all__


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Load a sub-package when it is first used."""
        if name in _ON_DEMAND:
            return importlib.import_module(f".{name}", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        """List the public names, including sub-packages that are not loaded yet."""
        return sorted({*globals(), *_ON_DEMAND})
