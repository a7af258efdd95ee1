"""Lists the layers of a model that can be explained, and finds the default one."""

from .listing import Layer, find_default_layer, find_layers

__all__ = ["Layer", "find_default_layer", "find_layers"]
