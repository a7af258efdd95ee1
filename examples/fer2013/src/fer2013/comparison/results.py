"""Collect the accuracies of our networks from run folders and from the package's records."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..configurations.config import Config
from ..configurations.recipes import CONFIGS, find_run
from ..evaluation.accuracy import wilson
from ..evaluation.predictions import MEANINGS
from ..evaluation.records import MEASURED
from ..files import sha256
from ..networks import weights
from ..training.initial_weights import PRETRAIN

#: The number of training images in each split of the whole of FER2013.
WHOLE = {"standard": 28709, "deck": 22967}

SELECTED = "the epoch was selected on these images, so the accuracy is slightly too high"
RANDOM = "random initial weights, which is not this configuration's protocol: no result"

_NETWORKS = {"base": "base CNN", "vgg19": "VGG19", "vgg19_bn": "VGG19-BN"}
_PRETRAINED = {"imagenet": "ImageNet", PRETRAIN: "Tiny ImageNet"}

# Errors from files that are damaged or of another version.
_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError)


@dataclasses.dataclass(frozen=True)
class Result:
    """A network's accuracy on one test set, or a run that has not been measured.

    Attributes:
        config: the training configuration.
        source: the run's folder, or "package".
        facts: the description of its training.
        on: the test set; empty if not measured.
        averaging: the views of an image whose predictions are averaged.
        count: number of images; 0 if not measured.
        correct: number of correct predictions.
        report: scikit-learn's classification report as a dict.
        distinct: number of images without duplicates in Training, and of correct predictions among
            them; None if unknown.
        deviations: differences from the configuration of that name.
        notes: further information for readers.
        sha256: digest of the weights.
        command: the command that repeats the measurement.
    """

    config: Config
    source: str
    facts: dict[str, Any]
    on: str = ""
    averaging: str = ""
    count: int = 0
    correct: int = 0
    report: dict[str, Any] = dataclasses.field(default_factory=dict)
    distinct: tuple[int, int] | None = None
    deviations: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sha256: str = ""
    command: str = ""

    @property
    def accuracy(self) -> float:
        """The accuracy in [0, 1]."""
        return self.correct / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """The accuracy's 95% Wilson interval."""
        return wilson(self.correct, self.count)

    @property
    def faithful(self) -> bool:
        """Whether the run follows its configuration, including the data of its pretraining."""
        wanted = CONFIGS.get(self.config.name)
        return (
            wanted is not None
            and not self.deviations
            and network(self.config, self.facts) == network(wanted, {})
        )


def collect(runs: Path, measured: Path = MEASURED) -> tuple[list[Result], list[str]]:
    """Return all results, and error messages for unreadable files.

    Results of a run's folder take precedence over the package's records of the same weights.

    Args:
        runs: a folder of run folders, which need not exist.
        measured: the folder of the package's records.
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
    found.append(_of_facts(weights.read_facts(), "package", sha256(weights.SHIPPED)))
    kept: dict[tuple[Any, ...], Result] = {}
    for result in found:
        of = result.sha256 or result.source
        kept.setdefault((result.config.name, of, result.on, result.averaging), result)
    return list(kept.values()), skipped


def representative(results: Sequence[Result]) -> list[Result]:
    """Return the measured runs without deviations, sorted by how well they represent their run.

    Preferred are the test set nearest to the deck's and the configuration's way of averaging.
    Pretraining on Tiny ImageNet instead of ImageNet is not a deviation.
    """
    order = ("deck-test", "PrivateTest", "PublicTest")

    def place(result: Result) -> tuple[str, int, bool, int]:
        test = order.index(result.on) if result.on in order else len(order)
        other = result.averaging != result.config.averaging
        return result.config.name, test, other, int(result.facts.get("seed", 0))

    return sorted((r for r in results if r.count and not r.deviations), key=place)


def network(config: Config, facts: dict[str, Any]) -> str:
    """Describe a network and its pretraining; without facts, as its configuration asks for."""
    name = _NETWORKS[config.network]
    if config.network == "base":
        return name
    if config.weights == "none":
        return f"{name}, random weights"
    seen = facts.get("pretrained_on", _PRETRAINED.get(config.weights))
    return f"{name} pretrained on {seen}" if seen else f"{name} from {Path(config.weights).stem}"


def deviations(config: Config, facts: dict[str, Any]) -> tuple[str, ...]:
    """Describe how a run differs from the configuration of the same name."""
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
        found.append(f"trained with the index {facts['index']}")
    if wanted.weights in _PRETRAINED:
        seen = facts.get("pretrained_on", _PRETRAINED.get(config.weights))
        if config.weights == "none":
            found.append(RANDOM)
        elif "started_from" in facts:
            found.append("from another network's weights, not pretrained on photographs")
        elif seen not in _PRETRAINED.values():
            found.append(f"from {Path(config.weights).name}, of unknown origin")
    elif config.weights != wanted.weights:
        found.append(f"from {Path(config.weights).name}, not {wanted.weights}")
    count = re.search(r"(\d+) faces", str(facts.get("trained_on", "")))
    if count and int(count[1]) != WHOLE[config.split]:
        found.append(f"trained on {int(count[1]):,} images, not {WHOLE[config.split]:,}")
    return tuple(found)


def _notes(facts: dict[str, Any], *, selected: bool) -> tuple[str, ...]:
    seed = int(facts.get("seed", 0))
    return (*([f"seed {seed}"] if seed else []), *([SELECTED] if selected else []))


def _of_run(folder: Path, skipped: list[str]) -> list[Result]:
    """Return a run's results; add its evaluations that are damaged or outdated to ``skipped``."""
    config, _ = find_run(str(folder / "run.json"))
    path = folder / f"{config.name}.safetensors"
    if not path.is_file():
        return [_unfinished(folder, config)]
    facts, digest = weights.read_facts(path), sha256(path)
    if weights.config_of(facts) != config:
        raise ValueError(f"{path} has another configuration than run.json")
    found: list[Result] = []
    for file in sorted(folder.glob("evaluation/*/evaluation.json")):
        try:
            result = _of_evaluation(json.loads(file.read_text("utf-8")), str(folder))
        except _DAMAGED as error:
            skipped.append(f"{file} is not an evaluation: {error!r}")
            continue
        if result.sha256 == digest:
            found.append(result)
        else:
            skipped.append(f"{file} was made with other weights than {path}: run evaluate again")
    return [*found, _of_facts(facts, str(folder), digest)]


def _unfinished(folder: Path, config: Config) -> Result:
    facts = json.loads((folder / "run.json").read_text("utf-8"))
    try:
        done = len(pd.read_csv(folder / "history.csv"))
    except (OSError, ValueError):
        done = 0
    progress = f"unfinished, {done} of at most {config.epochs} epochs"
    return Result(
        config,
        str(folder),
        facts,
        deviations=deviations(config, facts),
        notes=(*_notes(facts, selected=False), progress),
    )


def _recorded(path: Path) -> list[Result]:
    values = json.loads(path.read_text("utf-8"))
    found = [_of_evaluation(part, "package") for part in values["evaluations"]]
    # The base network's record must belong to the weights in the package.
    if any(r.config.name == "base" and r.sha256 != sha256(weights.SHIPPED) for r in found):
        raise ValueError(f"it was made with other weights than {weights.SHIPPED.name}")
    return found


def _of_evaluation(values: dict[str, Any], source: str) -> Result:
    """Return the result in the JSON of an evaluation."""
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
        distinct=(int(fewer["n"]), int(fewer["correct"])) if isinstance(fewer, dict) else None,
        deviations=deviations(config, facts),
        notes=_notes(facts, selected=values["selected on it"]),
        sha256=values["weights"]["sha256"],
        command=values["command"],
    )


def _of_facts(facts: dict[str, Any], source: str, digest: str) -> Result:
    """Return the validation result after training, from a weights file."""
    config = weights.config_of(facts)
    count = int(facts["report"]["macro avg"]["support"])
    averagings = {words: name for name, words in MEANINGS.items()}
    return Result(
        config,
        source,
        facts,
        on=str(facts["accuracy_on"]).split(",")[0],
        averaging=averagings[facts["averaging"]],
        count=count,
        correct=round(facts["accuracy"] * count),
        report=facts["report"],
        deviations=deviations(config, facts),
        notes=_notes(facts, selected="selected" in facts["accuracy_on"]),
        sha256=digest,
    )
