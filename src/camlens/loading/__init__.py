"""Load models and weights by name, read photographs, and preprocess them."""

from .loaded_model import LoadedModel
from .models import load_model
from .photographs import FORMATS, MAX_PIXELS, SUFFIXES, find_photographs, read_photograph
from .preprocessing import Preprocessing
from .transforms import Transform

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "SUFFIXES",
    "LoadedModel",
    "Preprocessing",
    "Transform",
    "find_photographs",
    "load_model",
    "read_photograph",
]
