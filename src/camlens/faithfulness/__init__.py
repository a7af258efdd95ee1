"""Measure faithfulness: whether the model's score depends on what a map highlights."""

from .evaluation.evaluate import evaluate
from .evaluation.result import Evaluation
from .infill import INFILLS
from .localization import (
    class_mean,
    energy_pointing_game,
    intersection_over_union,
    pointing_game,
)
from .map_shape import completeness, complexity, sparseness
from .metric.floors import FLOORS
from .metric.inputs import MetricInputs
from .metric.options import MetricOptions
from .metric.result import AboveFloor, Interval, MetricResult
from .metric.shared_passes import SharedPasses
from .region_ablation import ablate_regions
from .region_ablation_result import RegionAblation
from .removal.adcc import adcc
from .removal.imputation import impute
from .removal.insertion_deletion import deletion, insertion, rise_blur
from .removal.masked_images import average_drop, average_gain, average_increase
from .removal.road import road
from .removal.saco import saco
from .removal.subsets import infidelity, mu_fidelity
from .removal.sufficiency import sufficiency
from .sanity.planted_evidence import PlantedEvidence, planted_evidence
from .sanity.random_logit import random_logit
from .sanity.randomization import Randomization, randomization
from .sanity.similarity import spearman, ssim
from .sanity.stability import sensitivity

__all__ = [
    "FLOORS",
    "INFILLS",
    "AboveFloor",
    "Evaluation",
    "Interval",
    "MetricInputs",
    "MetricOptions",
    "MetricResult",
    "PlantedEvidence",
    "Randomization",
    "RegionAblation",
    "SharedPasses",
    "ablate_regions",
    "adcc",
    "average_drop",
    "average_gain",
    "average_increase",
    "class_mean",
    "completeness",
    "complexity",
    "deletion",
    "energy_pointing_game",
    "evaluate",
    "impute",
    "infidelity",
    "insertion",
    "intersection_over_union",
    "mu_fidelity",
    "planted_evidence",
    "pointing_game",
    "random_logit",
    "randomization",
    "rise_blur",
    "road",
    "saco",
    "sensitivity",
    "sparseness",
    "spearman",
    "ssim",
    "sufficiency",
]
