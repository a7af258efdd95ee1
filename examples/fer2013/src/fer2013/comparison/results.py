"""What is known of our networks' accuracy: from run folders, and from what the package holds."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from ..configurations.config import Config
from ..configurations.recipes import CONFIGS, find
from ..evaluation.accuracy import wilson
from ..evaluation.predictions import MEANINGS
from ..evaluation.records import MEASURED, digest
from ..networks import weights
from ..networks.imagenet import is_published

#: How many faces the whole of FER2013 gives each split to train on.
WHOLE = {"standard": 28709, "deck": 22967}

SELECTED = "the epoch was chosen on these faces, which flatters it a little"
DISTINCT = "without the faces that have a twin in Training"
RANDOM = "random weights, not the protocol: no result of this configuration"

# What a file says when it is damaged, or another version's.
_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError)


@dataclasses.dataclass(frozen=True)
class Result:
    """A network on one test set, or a run without a figure.

    Attributes:
        config: what it was trained with.
        source: the run's folder, or "package".
        on: the test set; empty if there is no figure.
        averaging: over which views of a face.
        count: faces, 0 if there is no figure.
        correct: how many of them it is right about.
        report: scikit-learn's, by class name.
        deviations: what keeps the run from being its configuration's protocol.
        notes: what a reader should know of the figure.
        sha256: of the weights.
        command: what measures it again.
    """

    config: Config
    source: str
    on: str = ""
    averaging: str = ""
    count: int = 0
    correct: int = 0
    report: dict[str, Any] = dataclasses.field(default_factory=dict)
    deviations: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sha256: str = ""
    command: str = ""

    @property
    def accuracy(self) -> float:
        """Return the accuracy in [0, 1]."""
        return self.correct / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Return its 95% Wilson interval."""
        return wilson(self.correct, self.count)

    @property
    def distinct(self) -> bool:
        """Return whether faces with a twin in Training were left out."""
        return DISTINCT in self.notes


def collect(runs: Path, measured: Path = MEASURED) -> tuple[list[Result], list[str]]:
    """Return what is known of our networks, and what could not be read and why.

    A run's own folder comes before what the package holds of the same weights.

    Args:
        runs: a folder of run folders; it need not be there.
        measured: the package's records, as ``evaluate --record`` writes them.
    """
    found: list[Result] = []
    skipped: list[str] = []
    for folder in sorted(path.parent for path in runs.glob("*/run.json")):
        try:
            found += _of_run(folder, skipped)
        except _DAMAGED as error:
            skipped.append(f"{folder}: {error}")
    for path in sorted(measured.glob("*.json")):
        try:
            found += _recorded(path)
        except _DAMAGED as error:
            skipped.append(f"{path} is not a record of evaluations: {error!r}")
    found += _of_facts(weights.read_facts(), "package", digest(weights.SHIPPED))
    kept: dict[tuple[Any, ...], Result] = {}
    for result in found:
        what = (result.on, result.averaging, result.distinct)
        of = result.sha256 or result.source
        kept.setdefault((result.config.name, of, *what), result)
    return list(kept.values()), skipped


def of_evaluation(values: dict[str, Any], source: str) -> Iterator[Result]:
    """Return the full and, if there is one, the de-duplicated result of an evaluation's JSON.

    Raises:
        KeyError: it is something else.
        TypeError: likewise.
        ValueError: its configuration is not one of this version.
    """
    facts = values["training"]
    config = weights.config_of(facts)
    selected = (SELECTED,) if values["selected on it"] else ()
    parts = [(values, selected)]
    if isinstance(values["deduplicated"], dict):
        parts.append((values["deduplicated"], (*selected, DISTINCT)))
    for part, notes in parts:
        yield Result(
            config,
            source,
            on=values["on"],
            averaging=values["averaging"],
            count=int(part["n"]),
            correct=int(part["correct"]),
            report=part["report"],
            deviations=deviations(config, facts),
            notes=notes,
            sha256=values["weights"]["sha256"],
            command=values["command"],
        )


def deviations(config: Config, facts: dict[str, Any]) -> tuple[str, ...]:
    """Return in what a run differs from the configuration of its name, in words."""
    wanted = CONFIGS.get(config.name)
    if wanted is None:
        return ("not a configuration of this version",)
    names = [field.name for field in dataclasses.fields(Config) if field.name != "weights"]
    changed = [name for name in names if getattr(config, name) != getattr(wanted, name)]
    found = [
        "another augmentation"
        if name == "augmentation"
        else f"{name} {getattr(config, name)}, not {getattr(wanted, name)}"
        for name in changed
    ]
    if "index" in facts:
        found.append(f"trained and selected with the index {facts['index']}")
    if config.weights == "none" and wanted.weights == "imagenet":
        found.append(RANDOM)
    elif "started_from" in facts and wanted.weights == "imagenet":
        found.append("from another network's weights, not ImageNet's")
    elif wanted.weights == "imagenet" != config.weights and not is_published(
        str(facts.get("imagenet_sha256")), config.network
    ):
        found.append(
            f"from {Path(config.weights).name}, which is not the file torchvision published"
        )
    elif wanted.weights not in (config.weights, "imagenet"):
        found.append(f"from {Path(config.weights).name}, not {wanted.weights}")
    count = re.search(r"(\d+) faces", str(facts.get("trained_on", "")))
    if count and int(count[1]) != WHOLE[config.split]:
        found.append(f"trained on {int(count[1]):,} faces, not {WHOLE[config.split]:,}")
    return tuple(found)


def _of_run(folder: Path, skipped: list[str]) -> list[Result]:
    """Return a run's results, and name the evaluations that are damaged or of other weights."""
    config = find(str(folder / "run.json"))
    path = folder / f"{config.name}.safetensors"
    if not path.is_file():
        unfinished = Result(config, str(folder), deviations=deviations(config, {}))
        return [dataclasses.replace(unfinished, notes=(_progress(folder, config),))]
    facts, sha256 = weights.read_facts(path), digest(path)
    if weights.config_of(facts) != config:
        raise ValueError(f"{path} was trained with another configuration than run.json says")
    found: list[Result] = []
    for file in sorted(folder.glob("evaluation/*/evaluation.json")):
        try:
            results = list(of_evaluation(json.loads(file.read_text("utf-8")), str(folder)))
        except _DAMAGED as error:
            skipped.append(f"{file} is not an evaluation: {error!r}")
            continue
        if results[0].sha256 == sha256:
            found += results
        else:
            skipped.append(f"{file} is of other weights than {path}: run evaluate again")
    return [*found, *_of_facts(facts, str(folder), sha256)]


def _progress(folder: Path, config: Config) -> str:
    """Say how far a run has come that has no weights yet."""
    try:
        done = len(pd.read_csv(folder / "history.csv"))
    except (OSError, ValueError):
        done = 0
    return f"unfinished, {done} of at most {config.epochs} epochs"


def _recorded(path: Path) -> list[Result]:
    values = json.loads(path.read_text("utf-8"))
    found = [r for part in values["evaluations"] for r in of_evaluation(part, "package")]
    # The record of the network that comes with the package must be of the file that comes with it.
    if any(r.config.name == "base" and r.sha256 != digest(weights.SHIPPED) for r in found):
        raise ValueError(f"it is of other weights than {weights.SHIPPED.name}")
    return found


def _of_facts(facts: dict[str, Any], source: str, sha256: str) -> list[Result]:
    """Return what the training itself measured, as the weights file says."""
    config = weights.config_of(facts)
    on = str(facts["accuracy_on"]).split(",")[0]
    count = int(facts["report"]["macro avg"]["support"])
    averagings = {words: name for name, words in MEANINGS.items()}
    return [
        Result(
            config,
            source,
            on=on,
            averaging=averagings[facts["averaging"]],
            count=count,
            correct=round(facts["accuracy"] * count),
            report=facts["report"],
            deviations=deviations(config, facts),
            notes=(SELECTED,) if "selected" in facts["accuracy_on"] else (),
            sha256=sha256,
        )
    ]
