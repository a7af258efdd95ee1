"""Named regions of images, and how much of a heatmap falls on each.

Masks (:class:`Regions`), scores (:func:`score`), the table (:func:`table`) and its statistics.
Whether the model depends on a region is measured by :mod:`camlens.faithfulness`.
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
