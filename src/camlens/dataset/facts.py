"""What a run's manifest says, at its start and at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..regions.masks import Regions
from ..regions.tables import COLUMNS
from . import descriptions, manifests
from .questions import Questions
from .runs import read_table
from .shards import shard_name
from .tables import IMAGES, MAPS


def first_manifest(asked: Questions, dataset: Any, shard_size: int) -> dict[str, Any]:
    """Return the manifest of a run that is about to start."""
    model = asked.explainers[0].model
    some = next(model.parameters(), torch.empty(0))
    return {
        "format": manifests.FORMAT,
        "model": descriptions.describe_model(model),
        "methods": [descriptions.describe_explainer(one) for one in asked.explainers],
        "targets": "predicted"
        if asked.targets is None
        else descriptions.describe(asked.targets, "targets"),
        "heatmaps": asked.heatmaps,
        "regions": list(asked.regions.names) if isinstance(asked.regions, Regions) else None,
        "region_source": descriptions.describe(asked.regions, "regions"),
        "infill": asked.infill,
        "activation": asked.activation,
        "classes": None if asked.classes is None else list(asked.classes),
        "picture": descriptions.describe(asked.picture, "picture"),
        "dataset": descriptions.describe_dataset(dataset),
        "batch_size": asked.batch_size,
        "shard_size": shard_size,
        "device": some.device.type,
        "modes": descriptions.describe_modes(some.device.type),
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
    identity = manifests.identity(manifest)
    size = manifest["shard_size"]
    unreadable = 0
    names = [shard_name(number) for number in range(-(-items // size))]
    for number, name in enumerate(names):
        path = run / name / "images.parquet"
        images = read_table(path, list(IMAGES), identity, only=["image", "reason"])
        expected = range(number * size, min(items, (number + 1) * size))
        if images["image"].tolist() != list(expected):
            raise ValueError(
                f"{path} holds {len(images)} items, expected {expected.start} to "
                f"{expected.stop - 1}: it is of another data set or was read to another end. "
                f"Delete the folder {path.parent} and run explain_dataset again"
            )
        unreadable += int(images["reason"].notna().sum())
    found = {"complete": True, "images": items, "unreadable": unreadable, "shards": names}
    methods = _with_layers(run, names, manifest["methods"], identity)
    regions = manifest["regions"]
    if manifest["region_source"] is not None and regions is None:
        regions = _first(run, names, identity)
    return {**manifest, "methods": methods, "regions": regions, **found}


def _with_layers(
    run: Path, names: list[str], methods: list[dict[str, Any]], identity: str
) -> list[Any]:
    """Name the layers that explainers found themselves."""
    if not any(map(manifests.finds_its_layer, methods)):
        return methods
    for name in names:
        path = run / name / "maps.parquet"
        table = read_table(path, list(MAPS), identity, only=["image", "k", "layer"])
        if len(table):
            # An image's first targets, in the order of the explainers: two may be of one method.
            first = table[(table["image"] == table["image"].iloc[0]) & (table["k"] == 0)]
            return [
                {**one, "layers": layer.split("+")} if manifests.finds_its_layer(one) else one
                for one, layer in zip(methods, first["layer"], strict=True)
            ]
    return methods


def _first(run: Path, names: list[str], identity: str) -> list[str] | None:
    """Return the names of the regions in the first shard that has any."""
    for name in names:
        path = run / name / "regions.parquet"
        table = read_table(path, COLUMNS, identity, only=["region"])
        if len(table):
            return [str(value) for value in table["region"].unique()]
    return None
