"""Faithfulness: does the score depend on what the map shows?"""

from .floors import FLOORS
from .infill import INFILLS
from .insertion_deletion import deletion, insertion, rise_blur
from .localization import (
    class_mean,
    energy_pointing_game,
    intersection_over_union,
    pointing_game,
)
from .metric_inputs import MetricInputs, MetricOptions
from .metric_result import AboveFloor, Interval, MetricResult
from .region_ablation import RegionAblation, ablate_regions

__all__ = [
    "FLOORS",
    "INFILLS",
    "AboveFloor",
    "Interval",
    "MetricInputs",
    "MetricOptions",
    "MetricResult",
    "RegionAblation",
    "ablate_regions",
    "class_mean",
    "deletion",
    "energy_pointing_game",
    "insertion",
    "intersection_over_union",
    "pointing_game",
    "rise_blur",
]
