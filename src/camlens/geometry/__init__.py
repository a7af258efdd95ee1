"""Measures the layout of a layer's output and the positions of its cells in the image."""

from .readings import Reading, measure

__all__ = ["Reading", "measure"]
