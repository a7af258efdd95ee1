"""Whole data sets: explained in a stream, kept in Parquet shards, gone on with after a crash.

:func:`explain_dataset` writes a run, :class:`Run` reads one. Needs ``camlens[data]``.
"""

from .questions import RegionsOf
from .running import explain_dataset, explain_with_ray
from .runs import Run
from .samples import Folder, Sample, Unreadable
from .tasks import ShardTask

__all__ = [
    "Folder",
    "RegionsOf",
    "Run",
    "Sample",
    "ShardTask",
    "Unreadable",
    "explain_dataset",
    "explain_with_ray",
]
