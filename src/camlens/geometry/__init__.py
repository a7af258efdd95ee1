"""What a layer's output is and where its cells lie in the image, measured."""

from .readings import Reading, measure

__all__ = ["Reading", "measure"]
