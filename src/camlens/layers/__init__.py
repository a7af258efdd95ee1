"""Which layers can be explained, and the one that is explained unless another is named."""

from .listing import Layer, find_default_layer, find_layers

__all__ = ["Layer", "find_default_layer", "find_layers"]
