"""What a run's manifest says, at its start and at its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..regions.masks import Regions
from ..regions.tables import COLUMNS
from . import descriptions, manifests
from .runs import read_table
from .shards import shard_name
from .tables import IMAGES, MAPS

if TYPE_CHECKING:
    from .tasks import ShardTask


def first_manifest(task: ShardTask) -> dict[str, Any]:
    """Return the manifest of a run that is about to start."""
    model = task.explainers[0].model
    some = next(model.parameters(), torch.empty(0))
    return {
        "format": manifests.FORMAT,
        "model": {
            "name": type(model).__name__,
            "fingerprint": descriptions.fingerprint(model),
            "structure": descriptions.structure(model),
        },
        "methods": [descriptions.describe_explainer(one) for one in task.explainers],
        "targets": "predicted" if task.targets is None else descriptions.describe(task.targets),
        "heatmaps": task.heatmaps,
        "regions": list(task.regions.names) if isinstance(task.regions, Regions) else None,
        "region_source": descriptions.describe(task.regions),
        "fill": task.fill,
        "classes": None if task.classes is None else list(task.classes),
        "picture": descriptions.describe(task.picture),
        "dataset": descriptions.describe_dataset(task.dataset),
        "batch_size": task.batch_size,
        "shard_size": task.shard_size,
        "device": some.device.type,
        "versions": descriptions.versions(),
        "complete": False,
        "images": None,
        "unreadable": None,
        "shards": [],
    }


def completed(run: Path, items: int) -> dict[str, Any]:
    """Return the manifest of a run whose shards are all there.

    Args:
        run: its folder.
        items: how many the data set has.

    Raises:
        ValueError: a shard is damaged, or holds other images than its own.
    """
    manifest = manifests.read(run)
    size = manifest["shard_size"]
    unreadable = 0
    names = [shard_name(number) for number in range(-(-items // size))]
    for number, name in enumerate(names):
        path = run / name / "images.parquet"
        images = read_table(path, list(IMAGES), only=["image", "reason"])
        expected = range(number * size, min(items, (number + 1) * size))
        if images["image"].tolist() != list(expected):
            raise ValueError(
                f"{path} holds {len(images)} items, expected {expected.start} to "
                f"{expected.stop - 1}: it is of another data set or was read to another end. "
                f"Delete the folder {path.parent} and run explain_dataset again"
            )
        unreadable += int(images["reason"].notna().sum())
    found = {"complete": True, "images": items, "unreadable": unreadable, "shards": names}
    methods = _with_layers(run, names, manifest["methods"])
    regions = manifest["regions"]
    if manifest["region_source"] is not None and regions is None:
        regions = _first(run, names, "regions.parquet", COLUMNS, "region")
    return {**manifest, "methods": methods, "regions": regions, **found}


def _with_layers(run: Path, names: list[str], methods: list[dict[str, Any]]) -> list[Any]:
    """Name the layers that explainers found themselves."""
    if not any(map(manifests.finds_its_layer, methods)):
        return methods
    for name in names:
        table = read_table(run / name / "maps.parquet", list(MAPS), only=["image", "k", "layer"])
        if len(table):
            # An image's first targets, in the order of the explainers: two may be of one method.
            first = table[(table["image"] == table["image"].iloc[0]) & (table["k"] == 0)]
            return [
                {**one, "layers": layer.split("+")} if manifests.finds_its_layer(one) else one
                for one, layer in zip(methods, first["layer"], strict=True)
            ]
    return methods


def _first(
    run: Path, names: list[str], file: str, columns: tuple[str, ...], column: str
) -> list[str] | None:
    """Return the different values of a column in the first shard that has any."""
    for name in names:
        table = read_table(run / name / file, columns, only=[column])
        if len(table):
            return [str(value) for value in table[column].unique()]
    return None
