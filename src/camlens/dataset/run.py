"""Read a run's folder: tables over all shards, and heatmaps at the images' size."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .. import heatmap
from ..faithfulness import Evaluation
from ..regions.tables import COLUMNS
from . import manifest
from .options import HEAT_TYPES, tables_of
from .shards import present, read_table, shard_name
from .tables import IMAGES, MAPS, VALUES

if TYPE_CHECKING:
    import pandas as pd


class Run:
    """Reads a run that :func:`camlens.dataset.explain_dataset` wrote.

    Tables are read on first access and cached. Join them on ``image``, the position in the data
    set.

    Args:
        path: the run's folder.
        incomplete: whether to read a run that has not finished, as far as it goes.

    Attributes:
        path: the folder.
        manifest: the run's inputs and options, and the state of its results.
        identity: a hash of the inputs and options, stored in each shard.
        shards: names of the shards that are read, in order.
        scored: whether the run has regions.
        measured: whether the run has faithfulness metrics.

    Raises:
        FileNotFoundError: there is no run at the path.
        ValueError: the run is incomplete, damaged or in a newer format.
    """

    def __init__(self, path: str | os.PathLike[str], *, incomplete: bool = False) -> None:
        self.path = Path(path)
        self.manifest: dict[str, Any] = manifest.read(self.path)
        self.identity = manifest.identity(self.manifest)
        sources = (self.manifest["regions"], self.manifest.get("region_source"))
        self.scored = sources != (None, None)
        self.measured = bool(self.manifest.get("metrics"))
        tables = tables_of(regions=self.scored, metrics=self.measured)
        on_disk = {shard_name(number): number for number in present(self.path, tables)}
        self.shards: list[str] = self.manifest["shards"]
        if not self.manifest["complete"]:
            if not incomplete:
                raise ValueError(
                    f"{self.path} is not complete: it contains {len(on_disk)} shards. Run "
                    "explain_dataset again to resume, or read the finished shards with "
                    f"Run(path, incomplete=True)"
                )
            self.shards = sorted(on_disk, key=on_disk.__getitem__)
        if lacking := [name for name in self.shards if name not in on_disk]:
            raise ValueError(
                f"{self.path} is damaged: {lacking[0]} or a file in it is missing. Run "
                "explain_dataset again with the same options to write it again"
            )

    @functools.cached_property
    def images(self) -> pd.DataFrame:
        """One row for each item of the data set.

        The columns are image, name, label, prediction, confidence, width, height, thumbnail,
        outlines (of the regions: SVG paths by name, as JSON; the image's longer side has 224 units)
        and reason (why an item is unreadable; its other columns except image and name are missing).
        """
        return self._read("images.parquet", list(IMAGES))

    @functools.cached_property
    def maps(self) -> pd.DataFrame:
        """One row for each map.

        The columns are image, k, method, layer, grid, target, score, probability (of the explained
        class, NaN for other scores), evidence, heat, heat_height and heat_width. ``heat`` contains
        the bytes of the map on its grid, divided by its maximum.
        """
        return self._read("maps.parquet", list(MAPS))

    @functools.cached_property
    def regions(self) -> pd.DataFrame | None:
        """The table of regions, see :func:`camlens.regions.table`; None for a run without any."""
        return self._read("regions.parquet", list(COLUMNS)) if self.scored else None

    @functools.cached_property
    def evaluation(self) -> Evaluation | None:
        """The evaluation of the methods' maps; None for a run without metrics.

        It records no times, so that a repeated run writes identical files.
        """
        if not self.measured:
            return None
        rows = self._read("values.parquet", VALUES)
        return Evaluation.of_rows(rows, seed=self.manifest.get("seed", 0))

    @property
    def unreadable(self) -> pd.DataFrame:
        """The items that could not be read: image, name and reason."""
        images = self.images
        return images.loc[images["reason"].notna(), ["image", "name", "reason"]].reset_index(
            drop=True
        )

    def heatmaps(self, rows: pd.DataFrame) -> Tensor:
        """Return the heatmaps of some rows of :attr:`maps`, at the size of their images.

        Args:
            rows: n rows of :attr:`maps`, of images of one size.

        Returns:
            (n, H, W) float32 in [0, 1], equal to :attr:`camlens.Explanation.heatmaps` up to the
            rounding of the stored maps (1/510 of the maximum, or half precision).

        Raises:
            ValueError: the rows' images have several sizes, or the rows are damaged.
        """
        sizes = self.images.set_index("image").loc[rows["image"], ["height", "width"]]
        different = {(int(h), int(w)) for h, w in sizes.itertuples(index=False)}
        if len(different) > 1:
            raise ValueError(
                f"expected rows of images of one size, got {sorted(different)}: pass rows of one "
                "size at a time"
            )
        if not different:
            return torch.zeros(0, 0, 0)
        (size,) = different
        grids = [
            (int(h), int(w)) for h, w in zip(rows["heat_height"], rows["heat_width"], strict=True)
        ]
        heatmaps = torch.empty(len(rows), *size)
        for grid in sorted(set(grids)):
            places = [place for place, other in enumerate(grids) if other == grid]
            heat = self._heat(rows["heat"].iloc[places], grid)
            heatmaps[places] = heatmap.scale(heatmap.resize(heat, size)).squeeze(1)
        return heatmaps

    def _heat(self, stored: Sequence[bytes], grid: tuple[int, int]) -> Tensor:
        """Return (n, 1, h, w) float32 maps in [0, 1]."""
        kind = self.manifest["heatmaps"]
        if kind not in HEAT_TYPES:
            raise ValueError(
                f"{self.path} stores heat as {kind!r}, expected one of {[*HEAT_TYPES]}"
            )
        dtype: np.dtype[Any] = HEAT_TYPES[kind]
        try:
            values = np.frombuffer(b"".join(stored), dtype).reshape(-1, 1, *grid)
        except ValueError as error:
            raise ValueError(f"{self.path} is damaged: a map is not {grid}: {error}") from error
        heat = torch.from_numpy(values.astype(np.float32))
        return heat / 255 if kind == "uint8" else heat

    def _read(self, file: str, columns: list[str]) -> pd.DataFrame:
        import pandas as pd

        tables = [read_table(self.path / s / file, columns, self.identity) for s in self.shards]
        filled = [table for table in tables if len(table)] or tables[:1]
        if not filled:
            return pd.DataFrame(columns=columns)
        return pd.concat(filled, ignore_index=True)

    def __repr__(self) -> str:
        """Return a line with the path, the methods and the numbers of images or shards."""
        methods = ", ".join(method["method"] for method in self.manifest["methods"])
        if not self.manifest["complete"]:
            return f"Run({self.path}: {methods}, incomplete, {len(self.shards)} shards)"
        return (
            f"Run({self.path}: {methods}, {self.manifest['images']} images, "
            f"{self.manifest['unreadable']} unreadable)"
        )
