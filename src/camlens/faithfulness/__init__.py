"""Faithfulness: does the score depend on what the map shows?"""

from .infill import INFILLS
from .region_ablation import RegionAblation, ablate_regions

__all__ = ["INFILLS", "RegionAblation", "ablate_regions"]
