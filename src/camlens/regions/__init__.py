"""Named regions of images: what a heatmap claims of them, and whether the claim is true.

Masks (:class:`Regions`), scores (:func:`score`), the check (:func:`effect`), and the table and its
statistics. Only the check sees a model.
"""

from .agreements import agreement
from .effects import Effect, effect
from .masks import Regions
from .plots import density_against_effect, density_map
from .scores import Scores, score
from .statistics import compare, differences, summarize
from .tables import read, table, write

__all__ = [
    "Effect",
    "Regions",
    "Scores",
    "agreement",
    "compare",
    "density_against_effect",
    "density_map",
    "differences",
    "effect",
    "read",
    "score",
    "summarize",
    "table",
    "write",
]
