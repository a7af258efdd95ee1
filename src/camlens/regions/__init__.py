"""Scores of heatmaps on named regions of images, with tables, statistics and plots.

Masks are :class:`Regions`; :func:`score` measures how much of a heatmap falls on each region, and
:func:`table` collects the scores for statistics. :mod:`camlens.faithfulness` measures whether the
model depends on a region.
"""

from .masks import Regions
from .plots import density_against_excess, density_map
from .resolution import resolvable
from .scores import Scores, score
from .statistics import compare, differences, summarize
from .tables import agreement, read, table, write

__all__ = [
    "Regions",
    "Scores",
    "agreement",
    "compare",
    "density_against_excess",
    "density_map",
    "differences",
    "read",
    "resolvable",
    "score",
    "summarize",
    "table",
    "write",
]
