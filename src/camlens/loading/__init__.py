"""Photographs, preprocessing, and models and weights by name: what the command line reads."""

from .models import LoadedModel, load_model
from .photographs import FORMATS, MAX_PIXELS, SUFFIXES, find_photographs, read_photograph
from .preprocessing import Preprocessing

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "SUFFIXES",
    "LoadedModel",
    "Preprocessing",
    "find_photographs",
    "load_model",
    "read_photograph",
]
