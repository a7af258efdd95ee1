"""Evaluate methods over a data set into a folder, resumable: metrics, shard by shard."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from ..explainers import Explainer
from ..faithfulness.evaluate_batches import evaluate_images, named_explainers
from ..faithfulness.evaluation import COLUMNS, Evaluation
from ..faithfulness.metrics_by_name import DEFAULT_METRICS, METRICS, Metric, named_metrics
from ..files import write_whole
from ..progress import progress_bar
from .batches import Batch, Cut, Group, dead_workers_told, load
from .descriptions import describe, describe_dataset, describe_explainer, describe_model, versions
from .fingerprint import Walk
from .options import targets_of

#: What a folder of an evaluation says it is.
FORMAT = "camlens-evaluation-1"

_LOCALIZATION = ("pointing_game", "energy_pointing_game", "intersection_over_union")


def evaluate_dataset(
    explainers: Mapping[str, Explainer] | Sequence[Explainer],
    dataset: Any,
    out: str | os.PathLike[str],
    *,
    metrics: Sequence[str | Metric] | Mapping[str, Metric] = DEFAULT_METRICS,
    targets: Any = None,
    region: str | None = None,
    batch_size: int = 16,
    shard_size: int = 64,
    num_workers: int = 0,
    progress: bool | None = None,
    **options: Any,
) -> Evaluation:
    """Compute metrics of several methods over a data set, and write them to a folder.

    Shards are written whole. Repeating an interrupted call resumes after the last finished shard,
    and the files are byte for byte those of an undisturbed call.

    Args:
        explainers: as :func:`camlens.faithfulness.evaluate` takes them.
        dataset: map-style, with items as :func:`explain_dataset` takes them; what cannot be read
            is listed in ``unreadable.csv``.
        out: the folder, new, empty, or of this evaluation.
        metrics: as :func:`camlens.faithfulness.evaluate` takes them.
        targets: as :func:`explain_dataset` takes them.
        region: which of each sample's regions is the object of the localization metrics; None: the
            only one.
        batch_size: images that are explained at once.
        shard_size: images of a shard.
        num_workers: processes that read images.
        progress: whether a progress bar is shown.
        options: of :class:`camlens.faithfulness.MetricOptions`.

    Returns:
        The evaluation, read from the folder.

    Raises:
        OSError: the folder cannot be written to.
        TypeError, ValueError: an argument is wrong, the folder holds something else, or as the
            explainers and metrics raise it.
    """
    folder = Path(out)
    named = named_explainers(explainers)
    question = _Question(named, named_metrics(metrics), targets, region, options)
    _begin(folder, question.description(dataset, shard_size))
    cut = Cut(shard_size, batch_size)
    missing = [s for s in range(cut.count(len(dataset))) if not _shard(folder, s).exists()]
    rows: list[pd.DataFrame] = []
    unreadable: list[dict[str, Any]] = []
    batches = load(dataset, cut, missing, num_workers)
    with (
        dead_workers_told(),
        contextlib.closing(batches),
        progress_bar(len(missing) * shard_size, "evaluate", shown=progress) as advance,
    ):
        for batch in batches:
            rows += question.answers(batch)
            unreadable += [
                {"image": index, "name": item.name or str(index), "reason": item.reason}
                for index, item in batch.unreadable
            ]
            if batch.last:
                _write(folder, batch.shard, rows, unreadable)
                rows, unreadable = [], []
            advance(len(batch))
    return read_evaluation(folder)


def read_evaluation(folder: str | os.PathLike[str]) -> Evaluation:
    """Read what :func:`evaluate_dataset` or ``camlens evaluate`` wrote, as far as it went.

    Raises:
        FileNotFoundError: there is no evaluation.
        ValueError: it has no finished shard, or a file is damaged.
    """
    asked = read_asked(folder)
    shards = sorted(Path(folder).glob("shard-*.parquet"))
    if not shards:
        raise ValueError(f"{folder} has no finished shard: run the evaluation again to resume it")
    try:
        values = pd.concat([pd.read_parquet(shard) for shard in shards], ignore_index=True)
        values = values[list(COLUMNS)]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"a shard of {folder} is damaged ({error}): delete it and run the evaluation again"
        ) from error
    return Evaluation(values, seed=int(asked["options"].get("seed", 0)))


def read_asked(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what an evaluation's folder says was asked.

    Raises:
        FileNotFoundError: there is no evaluation.
        ValueError: its file is damaged, or of another format.
    """
    path = Path(folder) / "evaluation.json"
    try:
        asked = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(asked, dict) or asked.get("format") != FORMAT:
        raise ValueError(f"{path} is no evaluation of the format {FORMAT!r}")
    return asked


def read_unreadable(folder: str | os.PathLike[str]) -> pd.DataFrame:
    """Return the items that could not be read: image, name and reason."""
    parts = [pd.read_csv(path) for path in sorted(Path(folder).glob("shard-*.unreadable.csv"))]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=_UNREADABLE)


_UNREADABLE = ["image", "name", "reason"]


@dataclasses.dataclass(frozen=True)
class _Question:
    """What is asked of each image."""

    explainers: Mapping[str, Explainer]
    metrics: Mapping[str, Metric]
    targets: Any
    region: str | None
    options: Mapping[str, Any]

    @property
    def model(self) -> nn.Module:
        return next(iter(self.explainers.values())).model

    def description(self, dataset: Any, shard_size: int) -> dict[str, Any]:
        """Return what decides the numbers, in words and as hashes."""
        walk = Walk(strict=True)
        some = self.explainers.items()
        targets = "predicted" if self.targets is None else self.targets
        return {
            "format": FORMAT,
            "model": describe_model(self.model, walk),
            "methods": {name: describe_explainer(one, walk) for name, one in some},
            "metrics": {
                name: name if METRICS.get(name) is metric else describe(metric, name, walk)
                for name, metric in self.metrics.items()
            },
            "options": {n: describe(value, n, walk) for n, value in self.options.items()},
            "targets": describe(targets, "targets", walk),
            "region": self.region,
            "shard_size": shard_size,
            "dataset": describe_dataset(dataset, walk),
            "versions": versions(),
        }

    def answers(self, batch: Batch) -> list[pd.DataFrame]:
        """Evaluate a batch, run by run of images that follow one another."""
        device = next(iter((*self.model.parameters(), torch.empty(0)))).device
        return [
            evaluate_images(
                self.explainers,
                self.model,
                part.images.to(device),
                metrics=self.metrics,
                targets=targets_of(self.targets, part.indexes, part.labels, part.names),
                where=self._where(part),
                first=part.indexes[0],
                **self.options,
            )
            for group in batch.groups
            for part in _runs(group)
        ]

    def _where(self, group: Group) -> Any:
        """Return the object's masks, (N, H, W), of metrics that need them."""
        if not any(name in self.metrics for name in _LOCALIZATION):
            return None
        if group.regions is None:
            raise ValueError(
                f"the localization metrics need where the object is, but {group.names[0]!r} has "
                "no regions: give samples some, or leave these metrics out"
            )
        names = group.regions.names
        if self.region is None and len(names) > 1:
            raise ValueError(f"expected region= as the name of the object, one of {names}")
        picked = group.regions if self.region is None else group.regions.pick(self.region)
        return picked.masks[:, 0].expand(len(group.indexes), -1, -1)


def _begin(folder: Path, asked: dict[str, Any]) -> None:
    """Make the folder, or check that it holds this evaluation."""
    text = json.dumps(asked, indent=1, sort_keys=True)
    if (folder / "evaluation.json").exists():
        there = read_asked(folder)
        differing = sorted(
            name
            for name in {*there, *asked}
            if there.get(name) != json.loads(json.dumps(asked.get(name)))
        )
        if differing:
            raise ValueError(
                f"{folder} holds an evaluation with other {', '.join(differing)}, which would be "
                "mixed with this one: choose another folder, or delete this one"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    foreign = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if foreign:
        raise ValueError(
            f"{folder} is not empty ({', '.join(foreign[:3])}) and holds no evaluation: choose a "
            "new or an empty folder"
        )
    write_whole(folder / "evaluation.json", f"{text}\n".encode())


def _runs(group: Group) -> list[Group]:
    """Divide a group where an index is left out: a batch's first index tells all of them."""
    bounds = [0]
    bounds += [
        place
        for place in range(1, len(group.indexes))
        if group.indexes[place] != group.indexes[place - 1] + 1
    ]
    bounds.append(len(group.indexes))
    return [group[first:last] for first, last in itertools.pairwise(bounds)]


def _shard(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.parquet"


def _write(
    folder: Path, number: int, rows: list[pd.DataFrame], unreadable: list[dict[str, Any]]
) -> None:
    """Write a shard, the list of what could not be read first."""
    table = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=list(COLUMNS))
    table = table.sort_values(["image", "metric", "floor", "method", "k"], kind="stable")
    place = _shard(folder, number)
    if unreadable:
        text = pd.DataFrame(unreadable, columns=_UNREADABLE).to_csv(index=False)
        write_whole(place.with_suffix(".unreadable.csv"), text.encode())
    content = io.BytesIO()
    table.to_parquet(content, engine="pyarrow", index=False)
    write_whole(place, content.getvalue())
