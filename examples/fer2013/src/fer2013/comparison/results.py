"""What is known of our networks' accuracy: from run folders, and from what the package holds."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..configurations.config import Config
from ..configurations.recipes import CONFIGS, find
from ..evaluation.accuracy import wilson
from ..evaluation.predictions import MEANINGS
from ..evaluation.records import MEASURED, digest
from ..networks import weights
from ..training.initial_weights import PRETRAIN

#: How many faces the whole of FER2013 gives each split to train on.
WHOLE = {"standard": 28709, "deck": 22967}

SELECTED = "the epoch was chosen on these faces, which flatters it a little"
RANDOM = "random weights, not the protocol: no result of this configuration"

_NETWORKS = {"base": "base CNN", "vgg19": "VGG19", "vgg19_bn": "VGG19-BN"}
_PRETRAINED = {"imagenet": "ImageNet", PRETRAIN: "Tiny ImageNet"}

# What a file says when it is damaged, or another version's.
_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError)


@dataclasses.dataclass(frozen=True)
class Result:
    """A network on one test set, or a run without a figure.

    Attributes:
        config: what it was trained with.
        source: the run's folder, or "package".
        facts: what is known of its training.
        on: the test set; empty if there is no figure.
        averaging: over which views of a face.
        count: faces, 0 if there is no figure.
        correct: how many of them it is right about.
        report: scikit-learn's, by class name.
        confusion: (7, 7) counts as lists, rows true, in the order of the classes; empty if unknown.
        distinct: faces without a twin in Training, and how many it is right about; None if unknown.
        deviations: what keeps the run from being its configuration's protocol.
        notes: what a reader should know of the figure.
        sha256: of the weights.
        command: what measures it again.
    """

    config: Config
    source: str
    facts: dict[str, Any]
    on: str = ""
    averaging: str = ""
    count: int = 0
    correct: int = 0
    report: dict[str, Any] = dataclasses.field(default_factory=dict)
    confusion: list[list[int]] = dataclasses.field(default_factory=list)
    distinct: tuple[int, int] | None = None
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
    def network(self) -> str:
        """Return the network and what its weights have seen, in words."""
        return network(self.config, self.facts)

    @property
    def substituted(self) -> bool:
        """Return whether it was pretrained on other photographs than its configuration says."""
        wanted = CONFIGS.get(self.config.name)
        return wanted is not None and self.network != network(wanted, {})


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
        of = result.sha256 or result.source
        kept.setdefault((result.config.name, of, result.on, result.averaging), result)
    return list(kept.values()), skipped


def representative(results: Sequence[Result]) -> list[Result]:
    """Return the figures that follow their configurations, the best choice of each run first.

    That is the test set nearest to the deck's, and the configuration's own way of averaging; other
    photographs to pretrain on are no departure here.
    """
    order = ("deck-test", "PrivateTest", "PublicTest")

    def place(result: Result) -> tuple[str, int, bool, int]:
        test = order.index(result.on) if result.on in order else len(order)
        other = result.averaging != result.config.averaging
        return result.config.name, test, other, int(result.facts.get("seed", 0))

    return sorted((r for r in results if r.count and not r.deviations), key=place)


def network(config: Config, facts: dict[str, Any]) -> str:
    """Return a network and what its weights had seen before these faces, in words.

    Args:
        config: its configuration.
        facts: of its training; without them, what the configuration asks for.
    """
    name = _NETWORKS[config.network]
    if config.network == "base":
        return name
    if config.weights == "none":
        return f"{name}, random weights"
    seen = facts.get("pretrained_on", _PRETRAINED.get(config.weights))
    return f"{name} pretrained on {seen}" if seen else f"{name} from {Path(config.weights).stem}"


def of_evaluation(values: dict[str, Any], source: str) -> Result:
    """Return the result of an evaluation's JSON.

    Raises:
        KeyError: it is something else.
        TypeError: likewise.
        ValueError: its configuration is not one of this version.
    """
    facts = values["training"]
    config = weights.config_of(facts)
    fewer = values["deduplicated"]
    return Result(
        config,
        source,
        facts,
        on=values["on"],
        averaging=values["averaging"],
        count=int(values["n"]),
        correct=int(values["correct"]),
        report=values["report"],
        confusion=values["confusion"]["counts"],
        distinct=(int(fewer["n"]), int(fewer["correct"])) if isinstance(fewer, dict) else None,
        deviations=deviations(config, facts),
        notes=_notes(facts, selected=values["selected on it"]),
        sha256=values["weights"]["sha256"],
        command=values["command"],
    )


def _notes(facts: dict[str, Any], *, selected: bool) -> tuple[str, ...]:
    seed = int(facts.get("seed", 0))
    return (*([f"seed {seed}"] if seed else []), *([SELECTED] if selected else []))


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
    if wanted.weights in _PRETRAINED:
        seen = facts.get("pretrained_on", _PRETRAINED.get(config.weights))
        if config.weights == "none":
            found.append(RANDOM)
        elif "started_from" in facts:
            found.append("from another network's weights, not pretrained on photographs")
        elif seen not in _PRETRAINED.values():
            found.append(f"from {Path(config.weights).name}, of which nothing is known")
    elif config.weights != wanted.weights:
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
        facts = json.loads((folder / "run.json").read_text("utf-8"))
        notes = (*_notes(facts, selected=False), _progress(folder, config))
        departs = deviations(config, facts)
        return [Result(config, str(folder), facts, deviations=departs, notes=notes)]
    facts, sha256 = weights.read_facts(path), digest(path)
    if weights.config_of(facts) != config:
        raise ValueError(f"{path} was trained with another configuration than run.json says")
    found: list[Result] = []
    for file in sorted(folder.glob("evaluation/*/evaluation.json")):
        try:
            result = of_evaluation(json.loads(file.read_text("utf-8")), str(folder))
        except _DAMAGED as error:
            skipped.append(f"{file} is not an evaluation: {error!r}")
            continue
        if result.sha256 == sha256:
            found.append(result)
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
    found = [of_evaluation(part, "package") for part in values["evaluations"]]
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
            facts,
            on=on,
            averaging=averagings[facts["averaging"]],
            count=count,
            correct=round(facts["accuracy"] * count),
            report=facts["report"],
            deviations=deviations(config, facts),
            notes=_notes(facts, selected="selected" in facts["accuracy_on"]),
            sha256=sha256,
        )
    ]
