"""Faithfulness: does the score depend on what the map shows?"""

from .adcc import adcc
from .evaluate import evaluate
from .evaluation import Evaluation
from .floors import FLOORS
from .imputation import impute
from .infill import INFILLS
from .insertion_deletion import deletion, insertion, rise_blur
from .localization import (
    class_mean,
    energy_pointing_game,
    intersection_over_union,
    pointing_game,
)
from .map_shape import completeness, complexity, sparseness
from .masked_images import average_drop, average_gain, average_increase
from .metric_inputs import MetricInputs
from .metric_options import MetricOptions
from .metric_result import AboveFloor, Interval, MetricResult
from .planted_evidence import PlantedEvidence, planted_evidence
from .random_logit import random_logit
from .randomization import Randomization, randomization
from .region_ablation import RegionAblation, ablate_regions
from .road import road
from .similarity import spearman, ssim
from .stability import sensitivity
from .subsets import infidelity, mu_fidelity, saco
from .sufficiency import sufficiency

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
