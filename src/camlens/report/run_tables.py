"""Read and check a run's tables for the page; pictures and heat are read only where needed."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow.parquet as pq
from pyarrow import ArrowException

from ..dataset.run import Run
from ..dataset.shards import read_table
from ..regions.tables import COLUMNS
from . import wording
from .columns import MEASURES, check

if TYPE_CHECKING:
    from ..faithfulness import Evaluation

#: Columns that identify a setting, a way of making heatmaps. The grid depends on the image.
SETTING = ["method", "layer"]

#: Method and layer.
Setting = tuple[str, str]

_IMAGES = ["image", "name", "label", "prediction", "confidence", "width", "height", "reason"]
_MAPS = ["image", "k", *SETTING, "grid", "target", "score", "probability", "evidence"]
_VALUES = ["image", "k", "method", "metric", "better", "value", "curve"]
_HEAT = ["heat", "heat_height", "heat_width"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tables:
    """A run's tables, joined for the page.

    Attributes:
        run: the run.
        images: a row for each readable image, without thumbnails, with the additional columns
            ``shard`` and ``correct``, which is missing if the label or the prediction is.
        unreadable: ``image``, ``name`` and ``reason`` of unreadable images.
        maps: a row for each map, without the heat, with the additional column ``shown``: True for
            the one map of each image and setting that the findings use.
        regions: :func:`camlens.regions.table` with class ids in ``label``, ``prediction`` and
            ``target``, and with ``shown``; None if the run has no regions.
        evaluation: the faithfulness metrics; None if the run has none.
    """

    run: Run
    images: pd.DataFrame
    unreadable: pd.DataFrame
    maps: pd.DataFrame
    regions: pd.DataFrame | None
    evaluation: Evaluation | None = None

    @property
    def manifest(self) -> dict[str, Any]:
        """The run's manifest."""
        return self.run.manifest

    @property
    def notes(self) -> list[str]:
        """What the run says a reader must know, see :class:`camlens.dataset.RunOptions`."""
        notes = self.manifest.get("notes")
        return [str(note) for note in notes] if isinstance(notes, list) else []

    @property
    def labelled(self) -> bool:
        """Whether any image has a label."""
        return bool(self.images["label"].notna().any())

    @property
    def settings(self) -> list[Setting]:
        """Method and layer of each way of making heatmaps, in the run's order."""
        return [tuple(row) for row in self.maps[SETTING].drop_duplicates().to_numpy()]

    def setting_name(self, setting: Setting) -> str:
        """Return the shortest distinct name of a setting."""
        method, layer = setting
        alike = sum(other == method for other, _ in self.settings)
        return f"{method} at {layer}" if alike > 1 and layer else method

    def setting_detail(self, setting: Setting) -> str:
        """Return the layer and the grids of a setting's maps."""
        return wording.detail(setting[1], grids(select(self.maps, setting)))

    @property
    def measures(self) -> list[str]:
        """The :data:`MEASURES` that the run has."""
        return [name for name in MEASURES if name in self.maps]

    @property
    def region_names(self) -> list[str]:
        """The regions' names, in the run's order."""
        return [] if self.regions is None else self.regions["region"].drop_duplicates().tolist()

    def shown_regions(self, setting: Setting) -> pd.DataFrame | None:
        """Return the region rows of one map of each image, for averages; None if there are none."""
        if self.regions is None:
            return None
        rows = select(self.regions[self.regions["shown"]], setting)
        # The grid and k of the shown target may differ between images, but are averaged over.
        return None if rows.empty else rows.assign(k=0).drop(columns="grid")

    def class_name(self, target: Any) -> str:
        """Return the name of a class, or "class" and its number if it has none."""
        classes = self.manifest.get("classes") or []
        known = 0 <= target < len(classes)
        return str(classes[target]) if known else f"class {target}"

    def pictures(self, images: Sequence[int]) -> pd.DataFrame:
        """Return ``thumbnail`` and ``outlines`` of some images, by image."""
        return self._of(images, "images", ["image", "thumbnail", "outlines"]).set_index("image")

    def heat(self, images: Sequence[int]) -> pd.DataFrame:
        """Return ``image``, ``k``, the setting and the heat of some images' maps."""
        return self._of(images, "maps", ["image", "k", *SETTING, *_HEAT])

    def _of(self, images: Sequence[int], table: str, columns: list[str]) -> pd.DataFrame:
        """Read the rows of some images from the shards that contain them."""
        wanted = self.images["image"].isin(images)
        shards = self.images.loc[wanted, "shard"].unique()
        return _joined(self.run, table, columns, shards, lambda rows: rows["image"].isin(images))


def select(table: pd.DataFrame, setting: Setting) -> pd.DataFrame:
    """Return the rows of one setting."""
    method, layer = setting
    return table[(table["method"] == method) & (table["layer"] == layer)]


def grids(table: pd.DataFrame) -> list[str]:
    """Return the grids of a table of maps or regions, from the smallest to the largest."""
    distinct = table["grid"].drop_duplicates().tolist()
    return sorted(
        distinct, key=lambda grid: (math.prod(map(int, re.findall(r"\d{1,9}", grid))), grid)
    )


def load(run: str | os.PathLike[str] | Run) -> Tables:
    """Read a run's tables.

    Args:
        run: the folder of a complete run, or a :class:`camlens.dataset.Run`.

    Raises:
        FileNotFoundError: there is no run.
        ValueError: the run is incomplete, damaged or in a newer format (see
            :class:`camlens.dataset.Run`), or two of its explainers have the same method and layers.
    """
    if not isinstance(run, Run):
        run = Run(run)
    images = _joined(run, "images", _IMAGES, run.shards)
    readable = images["reason"].isna()
    unreadable = images.loc[~readable, ["image", "name", "reason"]].reset_index(drop=True)
    images = images[readable].drop(columns="reason").reset_index(drop=True)
    images["correct"] = (images["label"] == images["prediction"]).astype("boolean")
    maps = _joined(run, "maps", [*_MAPS, *_present(run, MEASURES)], run.shards)
    _check_joined(run, images, maps)
    maps = _with_shown(maps, images)
    regions = None
    if run.scored and len(maps):
        regions = _with_ids(run, _joined(run, "regions", None, run.shards), images, maps)
    return Tables(
        run=run,
        images=images,
        unreadable=unreadable,
        maps=maps,
        regions=regions,
        evaluation=_evaluation(run, images),
    )


def _evaluation(run: Run, images: pd.DataFrame) -> Evaluation | None:
    """Check the values of a run's metrics, and return its evaluation."""
    if not run.measured:
        return None
    keys = ["image", "k", "method", "metric"]
    values = _joined(run, "values", _VALUES, run.shards)
    if values.duplicated(keys).any() or not values["image"].isin(images["image"]).all():
        raise ValueError(
            f"{run.path} is damaged: values.parquet contains a value twice, or values of images "
            "that images.parquet lacks"
        )
    return run.evaluation


def _joined(
    run: Run,
    table: str,
    columns: list[str] | None,
    shards: Sequence[str],
    wanted: Callable[[pd.DataFrame], Any] | None = None,
) -> pd.DataFrame:
    """Read columns of one of a run's tables, over shards in order.

    Only requested rows and columns are kept, since the thumbnails and heat of 100,000 images would
    fill the memory.

    Args:
        run: the run to read.
        table: ``"images"``, ``"maps"``, ``"regions"`` or ``"values"``.
        columns: names of the columns; None for all.
        shards: names of the shards to read.
        wanted: returns a mask of the rows to keep; None for all.

    Raises:
        ValueError: a file is damaged, or has contents that no run writes.
    """
    parts = []
    for shard in shards:
        path = run.path / shard / f"{table}.parquet"
        part = check(read_table(path, columns or COLUMNS, run.identity, only=columns), path)
        if table == "images":
            part["shard"] = shard
        parts.append(part if wanted is None else part[wanted(part)])
    # An empty part would affect the columns' types.
    filled = [part for part in parts if len(part)] or parts[:1]
    if not filled:
        return pd.DataFrame(columns=[*(columns or COLUMNS), "shard"])
    return pd.concat(filled, ignore_index=True)


def _present(run: Run, columns: Iterable[str]) -> list[str]:
    """Return which of some columns the table of maps has in the first shard."""
    if not run.shards:
        return []
    try:
        known = pq.read_schema(run.path / run.shards[0] / "maps.parquet").names
    except (ArrowException, OSError):  # reported when the table is read
        return []
    return [name for name in columns if name in known]


def _check_joined(run: Run, images: pd.DataFrame, maps: pd.DataFrame) -> None:
    """Check that each image has one row, and that each map has an image."""
    if images["image"].duplicated().any():
        raise ValueError(f"{run.path} is damaged: images.parquet contains an image twice")
    if not maps["image"].isin(images["image"]).all():
        raise ValueError(
            f"{run.path} is damaged: maps.parquet contains maps of images that images.parquet lacks"
        )


def shown_target(maps: pd.DataFrame) -> str:
    """Return in words which of an image's targets the findings use."""
    return str(maps.attrs.get("shown", _FIRST))


#: Name of the shown target if it is neither the prediction nor the label.
_FIRST = "each image's first target"


def _with_shown(maps: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Mark one map of each image and setting.

    It is the predicted class's map if all images have one, otherwise the true class's if all images
    have one, otherwise the first map.
    """
    if maps.duplicated(["image", "k", *SETTING]).any():
        raise ValueError(
            "two explainers of this run have the same method and layers, so the page could not "
            "distinguish their maps: create a separate run for each"
        )
    known = images.set_index("image")
    for column, what in (("prediction", "the predicted class"), ("label", "the true class")):
        fits = (maps["target"] == maps["image"].map(known[column])).fillna(False).astype(bool)
        if maps.loc[fits, "image"].nunique() == maps["image"].nunique() > 0:
            return _marked(maps, maps[fits], what)
    return _marked(maps, maps.sort_values("k", kind="stable"), _FIRST)


def _marked(maps: pd.DataFrame, candidates: pd.DataFrame, what: str) -> pd.DataFrame:
    first = candidates.drop_duplicates(["image", *SETTING]).index
    maps = maps.assign(shown=maps.index.isin(first))
    maps.attrs["shown"] = what
    return maps


def _with_ids(
    run: Run, regions: pd.DataFrame, images: pd.DataFrame, maps: pd.DataFrame
) -> pd.DataFrame:
    """Replace class names with ids, so that two classes of the same name stay separate."""
    known = images.set_index("image")
    for column in ("label", "prediction", "correct"):
        regions[column] = regions["image"].map(known[column])
    keys = ["image", "k", *SETTING]
    if regions.duplicated([*keys, "region"]).any():
        raise ValueError(f"{run.path} is damaged: regions.parquet contains a region of a map twice")
    regions = regions.drop(columns="target")
    return regions.merge(maps[[*keys, "target", "shown"]], on=keys, how="inner", sort=False)
