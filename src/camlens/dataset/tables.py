"""Build the tables of a shard from the results for its images."""

from __future__ import annotations

import dataclasses
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .. import heatmap
from ..faithfulness import RegionAblation
from ..faithfulness.evaluation.measurements import Measurement, rows
from ..regions import tables as region_tables
from ..regions.outlines import outlines
from ..regions.scores import Scores
from .image_results import Explained, joined
from .items import NO_LABEL, Unreadable
from .options import HEAT_TYPES, RunOptions

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]

#: The columns of the table of images, and their pandas types.
IMAGES = {
    "image": "int64",
    "name": "string",
    "label": "Int64",
    "prediction": "Int64",
    "confidence": "float32",
    "width": "Int32",
    "height": "Int32",
    "thumbnail": "object",
    "outlines": "string",
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
    "probability": "float32",
    "evidence": "bool",
    "heat": "object",
    "heat_height": "int32",
    "heat_width": "int32",
}

#: The columns that the table of values always has; each floor adds one.
VALUES = [
    *("image", "k", "target", "method", "metric", "better", "value"),
    *("curve", "curve_from", "curve_to"),
]

#: Columns of bytes; pandas cannot infer the type of an empty one.
BINARY = ("thumbnail", "heat", "curve")

#: The longest side of a thumbnail, in pixels.
LONGEST = 224

#: JPEG, since PNG takes longer to write and twice the bytes; colour is not subsampled.
_JPEG: dict[str, Any] = {"format": "JPEG", "quality": 90, "subsampling": 0}


class Shard:
    """Collects the results of a shard's images and builds the shard's tables.

    Args:
        options: the run's options.
    """

    def __init__(self, options: RunOptions) -> None:
        self.options = options
        self._images: list[dict[str, Any]] = []
        self._maps: list[dict[str, Array]] = []
        self._scored: list[_Scored] = []
        self._measured: list[Measurement] = []

    def add(self, group: Explained) -> None:
        """Add a group of images; only thumbnails of its pictures are kept."""
        import pyarrow as pa

        predictions, confidences = group.predictions.tolist(), group.confidences.tolist()
        # Kept values are copied, by this thread or into Arrow's memory. If left among large tensors
        # of the computing thread, they would keep the C library from reusing that memory.
        small = pa.array(thumbnails(group.pictures), pa.binary())
        traced = outlines(group.regions) if group.regions else []
        paths = [json.dumps(lines) for lines in traced]
        for row, thumbnail in enumerate(small):
            prediction = predictions[row]
            self._images.append(
                {
                    "image": group.indexes[row],
                    "name": group.names[row],
                    "label": None if group.labels[row] == NO_LABEL else group.labels[row],
                    "prediction": None if prediction == NO_LABEL else prediction,
                    "confidence": confidences[row],
                    "width": group.size[1],
                    "height": group.size[0],
                    "thumbnail": thumbnail,
                    "outlines": paths[row % len(paths)] if paths else None,
                    "reason": None,
                }
            )
        for place, explanation in enumerate(group.explanations):
            rows = _map_rows(group, place, self.options.heatmaps)
            self._maps.append({"place": np.full(explanation.scores.numel(), place), **rows})
        for place, scores in enumerate(group.scores):
            ablation = None if group.ablation is None else _copied(group.ablation)
            self._scored.append(_Scored(place, group, _copied(scores), ablation))
        self._measured += group.measurements

    def leave_out(self, index: int, item: Unreadable) -> None:
        """Record an item that could not be read."""
        unknown: dict[str, Any] = dict.fromkeys(IMAGES)
        self._images.append({**unknown, "image": index, "name": item.name, "reason": item.reason})

    def images(self) -> pd.DataFrame:
        """Return a row for each item, in the data set's order."""
        rows = sorted(self._images, key=lambda row: row["image"])
        columns = {name: [row[name] for row in rows] for name in IMAGES}
        columns["thumbnail"] = [t if t is None else t.as_py() for t in columns["thumbnail"]]
        return _frame(columns, IMAGES)

    def maps(self) -> pd.DataFrame:
        """Return a row for each map, ordered by image, explainer and target."""
        if not self._maps:
            return _frame({name: [] for name in MAPS}, MAPS)
        parts = self._maps
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return _ordered(_frame(columns, MAPS), columns["place"])

    def regions(self) -> pd.DataFrame | None:
        """Return :func:`camlens.regions.table`, ordered by image and explainer.

        None if no map was scored.
        """
        import pandas as pd

        by_setting: dict[Any, list[_Scored]] = {}
        for scored in self._scored:
            scores = scored.scores
            key = (scored.place, scores.names, scores.layers, scores.grid, scores.share.shape[1])
            by_setting.setdefault(key, []).append(scored)
        frames, order = [], []
        for key, members in by_setting.items():
            frames.append(self._region_rows(members))
            order += [key[0]] * len(frames[-1])
        return _ordered(pd.concat(frames, ignore_index=True), order) if frames else None

    def values(self) -> pd.DataFrame:
        """Return a row for each map and metric, ordered by image and explainer."""
        return rows(self._measured, self.options.metric_plan)

    def _region_rows(self, members: list[_Scored]) -> pd.DataFrame:
        ablations = [scored.ablation for scored in members if scored.ablation is not None]
        return region_tables.table(
            joined([scored.scores for scored in members]),
            labels=[label for scored in members for label in scored.labels],
            predictions=[prediction for scored in members for prediction in scored.predictions],
            ablation=joined(ablations) if ablations else None,
            classes=self.options.classes,
            images=[index for scored in members for index in scored.indexes],
        )


class _Scored:
    """The scores of a group's maps by one explainer, with the images' labels and predictions."""

    def __init__(
        self, place: int, found: Explained, scores: Scores, ablation: RegionAblation | None
    ) -> None:
        self.place, self.scores, self.ablation = place, scores, ablation
        self.indexes, self.labels = found.indexes, found.labels
        self.predictions = found.predictions.tolist()


def thumbnails(pictures: Tensor) -> list[bytes]:
    """Encode pictures as JPEG of at most :data:`LONGEST` pixels a side.

    Args:
        pictures: (N, 1 or 3, H, W) uint8 on the CPU.
    """
    from PIL import Image

    h, w = pictures.shape[-2:]
    longest = max(h, w)
    if longest > LONGEST:
        size = max(1, round(h * LONGEST / longest)), max(1, round(w * LONGEST / longest))
        smaller = interpolate(pictures.float(), size, mode="bilinear", antialias=True)
        pictures = smaller.clamp(0, 255).round().to(torch.uint8)
    channels = pictures.numpy()
    grey = (channels == channels[:, :1]).all(axis=(1, 2, 3))
    found = []
    for one, pixels in zip(grey, channels, strict=True):
        file = io.BytesIO()
        # Grey takes a third of the bytes and looks the same.
        picture = pixels[0] if one else np.ascontiguousarray(pixels.transpose(1, 2, 0))
        Image.fromarray(picture).save(file, **_JPEG)
        found.append(file.getvalue())
    return found


def _copied(rows: Any) -> Any:
    values = {field.name: getattr(rows, field.name) for field in dataclasses.fields(rows)}
    tensors = {name: value.clone() for name, value in values.items() if isinstance(value, Tensor)}
    return dataclasses.replace(rows, **tensors)


def _map_rows(group: Explained, place: int, heatmaps: str) -> dict[str, Array]:
    """Return columns of the table of one explainer's maps; heat is each map over its maximum.

    A run draws its maps stretched over the images, so others are stored as they are drawn.
    """
    explanation = group.explanations[place]
    moved = explanation.registration is not None and explanation.registration.moved
    scaled = explanation.heatmaps if moved else heatmap.scale(explanation.raw)
    kept = (scaled * 255).round().to(torch.uint8) if heatmaps == "uint8" else scaled.half()
    n, k, h, w = kept.shape
    heat = kept.reshape(n * k, h * w).numpy().astype(HEAT_TYPES[heatmaps], copy=False)
    same = {
        "method": explanation.method,
        "layer": "+".join(explanation.layers),
        "grid": "x".join(map(str, explanation.grid)),
        "heat_height": h,
        "heat_width": w,
    }
    return {
        "image": np.repeat(group.indexes, k),
        "k": np.tile(np.arange(k), n),
        "target": explanation.targets.flatten().numpy(),
        "score": explanation.scores.flatten().numpy(),
        "probability": group.probabilities[place].flatten().numpy(),
        "evidence": explanation.evidence.flatten().numpy(),
        "heat": np.array([row.tobytes() for row in heat], dtype=object),
        **{name: np.full(n * k, value, dtype=object) for name, value in same.items()},
    }


def _frame(columns: dict[str, Any], types: dict[str, str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({name: pd.Series(columns[name], dtype=types[name]) for name in types})


def _ordered(frame: pd.DataFrame, order: Any) -> pd.DataFrame:
    """Sort rows by image and explainer, keeping the order of ties."""
    rows = np.lexsort((order, frame["image"].to_numpy()))
    return frame.take(rows).reset_index(drop=True)
