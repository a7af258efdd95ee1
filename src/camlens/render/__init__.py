"""Draws heatmaps: overlays, contour lines, signed gradients, contact sheets and figures."""

from . import slices
from .concept_pictures import concepts
from .overlays import as_rgb, check_range, contours, overlay, signed
from .sheets import sheet

__all__ = ["as_rgb", "check_range", "concepts", "contours", "overlay", "sheet", "signed", "slices"]
