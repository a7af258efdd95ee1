"""Explain whole data sets in batches, store the results in Parquet shards, resume after a crash.

:func:`explain_dataset` writes a run, :class:`Run` reads one. Needs ``camlens[data]``.
"""

from .explain import explain_dataset, explain_with_ray
from .items import Folder, Sample, Unreadable
from .options import RegionsOf, RunOptions
from .run import Run
from .task import ShardTask

__all__ = [
    "Folder",
    "RegionsOf",
    "Run",
    "RunOptions",
    "Sample",
    "ShardTask",
    "Unreadable",
    "explain_dataset",
    "explain_with_ray",
]
