"""Targets: the K scores of each image to explain, computed from a model's output."""

from .activations import ACTIVATIONS, check_activation, probabilities
from .of_data_sets import as_data_set_targets, row_count, targets_of
from .per_image import PerImage
from .places import box, segmentation
from .scores import contrast, regression, rest, similarity, text
from .selection import (
    NO_CLASS,
    Selection,
    Several,
    Targets,
    Top,
    as_classes,
    scores_in,
    select,
    several,
    top,
)

__all__ = [
    "ACTIVATIONS",
    "NO_CLASS",
    "PerImage",
    "Selection",
    "Several",
    "Targets",
    "Top",
    "as_classes",
    "as_data_set_targets",
    "box",
    "check_activation",
    "contrast",
    "probabilities",
    "regression",
    "rest",
    "row_count",
    "scores_in",
    "segmentation",
    "select",
    "several",
    "similarity",
    "targets_of",
    "text",
    "top",
]
