"""The three tables of a shard, from what was found of its images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..regions import tables as region_tables
from ..regions.scores import Scores
from .keeping import Explained, Maps, joined
from .questions import HEAT_TYPES
from .samples import NO_LABEL, Unreadable
from .thumbnails import thumbnails

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]

#: The columns of the table of images, and their types in pandas.
IMAGES = {
    "image": "int64",
    "name": "string",
    "label": "Int64",
    "prediction": "Int64",
    "confidence": "float32",
    "width": "Int32",
    "height": "Int32",
    "thumbnail": "object",
    "reason": "string",
}

#: The columns of the table of maps.
MAPS = {
    "image": "int64",
    "k": "int64",
    "method": "string",
    "layer": "string",
    "grid": "string",
    "target": "int64",
    "score": "float32",
    "evidence": "bool",
    "heat": "object",
    "heat_height": "int32",
    "heat_width": "int32",
}

#: Columns of bytes; pandas alone cannot tell what an empty one holds.
BINARY = ("thumbnail", "heat")


class Shard:
    """What is known of a shard so far, and the tables of it when all of it is.

    Args:
        classes: names of the classes, for the table of regions.
    """

    def __init__(self, classes: Sequence[str] | None = None) -> None:
        self.classes = classes
        self._found: list[Explained] = []
        self._images: list[dict[str, Any]] = []

    def add(self, found: Explained) -> None:
        """Take in a group of images; its pictures are made small and let go of."""
        import pyarrow as pa

        predictions, confidences = found.predictions.tolist(), found.confidences.tolist()
        # What stays is copied, by this thread or into Arrow's memory. Left between large tensors of
        # the thread that computes, it would keep the C library from using their memory again.
        small = pa.array(thumbnails(found.pictures), pa.binary())
        for row, thumbnail in enumerate(small):
            prediction = predictions[row]
            self._images.append(
                {
                    "image": found.indexes[row],
                    "name": found.names[row],
                    "label": None if found.labels[row] == NO_LABEL else found.labels[row],
                    "prediction": None if prediction == NO_LABEL else prediction,
                    "confidence": confidences[row],
                    "width": found.size[1],
                    "height": found.size[0],
                    "thumbnail": thumbnail,
                    "reason": None,
                }
            )
        without = dataclasses.replace(found, pictures=found.pictures.new_empty(0))
        self._found.append(without.copied(Tensor.clone))

    def leave_out(self, index: int, item: Unreadable) -> None:
        """Take down an item that could not be read."""
        unknown: dict[str, Any] = dict.fromkeys(IMAGES)
        self._images.append({**unknown, "image": index, "name": item.name, "reason": item.reason})

    def images(self) -> pd.DataFrame:
        """Return a row an item, in the data set's order."""
        rows = sorted(self._images, key=lambda row: row["image"])
        columns = {name: [row[name] for row in rows] for name in IMAGES}
        columns["thumbnail"] = [t if t is None else t.as_py() for t in columns["thumbnail"]]
        return _frame(columns, IMAGES)

    def maps(self) -> pd.DataFrame:
        """Return a row a map, ordered by image, explainer and target."""
        parts: list[dict[str, Array]] = []
        for found in self._found:
            for place, maps in enumerate(found.maps):
                parts.append({"place": np.full(maps.targets.numel(), place)})
                parts[-1] |= _map_rows(found.indexes, maps)
        if not parts:
            return _frame({name: [] for name in MAPS}, MAPS)
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return _ordered(_frame(columns, MAPS), columns["place"])

    def regions(self) -> pd.DataFrame | None:
        """Return what :func:`camlens.regions.table` gives, ordered by image and explainer.

        None where nothing was scored.
        """
        import pandas as pd

        alike: dict[Any, list[tuple[Explained, Scores]]] = {}
        for found in self._found:
            for place, scores in enumerate(found.scores):
                key = (place, scores.names, scores.layers, scores.grid, scores.share.shape[1])
                alike.setdefault(key, []).append((found, scores))
        frames, order = [], []
        for key, members in alike.items():
            frames.append(self._region_rows(members))
            order += [key[0]] * len(frames[-1])
        return _ordered(pd.concat(frames, ignore_index=True), order) if frames else None

    def _region_rows(self, members: list[tuple[Explained, Scores]]) -> pd.DataFrame:
        ablations = [found.ablation for found, _ in members if found.ablation is not None]
        predictions = [one for found, _ in members for one in found.predictions.tolist()]
        return region_tables.table(
            joined([scores for _, scores in members]),
            labels=[label for found, _ in members for label in found.labels],
            predictions=predictions,
            ablation=joined(ablations) if ablations else None,
            classes=self.classes,
            images=[index for found, _ in members for index in found.indexes],
        )


def _map_rows(indexes: Sequence[int], maps: Maps) -> dict[str, Array]:
    n, k, h, w = maps.heat.shape
    heat = maps.heat.reshape(n * k, h * w).numpy()
    heat = heat.astype(HEAT_TYPES[str(heat.dtype)], copy=False)
    same = {
        "method": maps.method,
        "layer": maps.layer,
        "grid": maps.grid,
        "heat_height": h,
        "heat_width": w,
    }
    return {
        "image": np.repeat(indexes, k),
        "k": np.tile(np.arange(k), n),
        "target": maps.targets.flatten().numpy(),
        "score": maps.scores.flatten().numpy(),
        "evidence": maps.evidence.flatten().numpy(),
        "heat": np.array([row.tobytes() for row in heat], dtype=object),
        **{name: np.full(n * k, value, dtype=object) for name, value in same.items()},
    }


def _frame(columns: dict[str, Any], types: dict[str, str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({name: pd.Series(columns[name], dtype=types[name]) for name in types})


def _ordered(frame: pd.DataFrame, order: Any) -> pd.DataFrame:
    """Sort rows by image and explainer; what is equal keeps its order."""
    rows = np.lexsort((order, frame["image"].to_numpy()))
    return frame.take(rows).reset_index(drop=True)
