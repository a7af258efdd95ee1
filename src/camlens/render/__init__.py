"""Pictures: overlays, contours, signed gradients, sheets, and the figure of an explanation."""

from . import slices
from .concept_pictures import concepts
from .overlays import as_rgb, check_range, contours, overlay, signed
from .sheets import sheet

__all__ = ["as_rgb", "check_range", "concepts", "contours", "overlay", "sheet", "signed", "slices"]
