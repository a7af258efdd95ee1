"""A network on its test sets, full and without the faces that it may know from Training."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..data.duplicates import KINDS, find, twins
from ..data.faces import CLASSES, USAGES, Faces
from ..data.splits import TESTS, members
from ..files import write_json
from ..networks import weights
from .accuracy import Evaluation, measure
from .predictions import MEANINGS, predict
from .records import default_folder, digest, remember
from .report import layout, write

#: What is measured if nothing is asked for, where the data has it.
DEFAULT = ("PublicTest", "PrivateTest")

# What a weights file says of one evaluation of its network, which ours takes the place of.
_OF_TRAINING = ("report", "accuracy", "accuracy_on", "averaging", "classes")


@dataclasses.dataclass(frozen=True)
class InferenceOptions:
    """How a network is run on the faces.

    Attributes:
        averaging: over which views; see :data:`fer2013.evaluation.predictions.MEANINGS`. None is
            what the network's configuration says.
        device: where it runs.
        precision: one of :data:`fer2013.evaluation.predictions.PRECISIONS`.
    """

    averaging: str | None = None
    device: str = "cpu"
    precision: str = "float32"


def study(
    path: Path,
    faces: Faces,
    *,
    tests: Sequence[str] = (),
    inference: InferenceOptions = InferenceOptions(),
    out: Path | None = None,
    record: Path | None = None,
) -> Iterator[str]:
    """Measure a network on test sets, write what is found, and say it line by line.

    Args:
        path: its weights file.
        faces: FER2013.
        tests: names out of :data:`fer2013.data.splits.TESTS`; default those of :data:`DEFAULT` that
            the data has.
        inference: how the network is run.
        out: a folder, in which each test set and averaging gets one of its own; default
            "evaluation" in a run's folder, or ``out/evaluate/NAME``.
        record: where to put the figures beside those that come with the package.

    Raises:
        FileNotFoundError: there are no such weights.
        ValueError: they are none of this package, or a test set is missing from the data.
    """
    facts, model = weights.read_facts(path), weights.load(path)
    config = weights.config_of(facts)
    if inference.averaging is None:
        inference = dataclasses.replace(inference, averaging=config.averaging)
    out = out or default_folder(path)
    # Before anything is computed, so that what is missing is not found out after minutes.
    asked = {test: members(faces, test) for test in tests} or _there(faces)
    leaked = _leaked(faces)
    for test in () if tests else DEFAULT:
        if test not in asked:
            yield f"{test}: the data holds none, so it is not measured\n"
    for test, which in asked.items():
        some, start = faces.take(which), time.monotonic()
        crop = config.augmentation.crop
        logits = predict(model, some, crop=crop, **dataclasses.asdict(inference))
        seconds = round(time.monotonic() - start, 1)
        found, values = _measured(logits, some.labels, _distinct(test, leaked, which))
        values = {**_described(path, facts, test, inference), **values, "seconds": seconds}
        folder = out / f"{test}-{inference.averaging}"
        _write(found, values, folder, f"{config.name} on {test}, {inference.averaging}")
        yield from _lines(found, values)
        yield f"wrote {folder}\n"
        if record is not None:
            remember(values, record)
            yield f"recorded in {record}\n"


def as_dict(evaluation: Evaluation) -> dict[str, Any]:
    """Return an evaluation as JSON types."""
    return {
        "n": evaluation.count,
        "correct": evaluation.correct,
        "accuracy": evaluation.accuracy,
        "interval": list(evaluation.interval),
        "report": evaluation.report,
        "confusion": {"classes": list(CLASSES), "counts": evaluation.confusion.tolist()},
        "calibration": evaluation.calibration.as_dict(),
    }


def _there(faces: Faces) -> dict[str, np.ndarray]:
    """Return the members of the default test sets that the data has."""
    usages = {USAGES[usage] for usage in np.unique(faces.usages)}
    if not usages & set(DEFAULT):
        raise ValueError(
            f"the data holds no {' and no '.join(DEFAULT)} faces: name what to measure on, "
            f"--split {' or '.join(sorted(usages))}"
        )
    return {test: members(faces, test) for test in DEFAULT if test in usages}


def _leaked(faces: Faces) -> np.ndarray | str:
    """Return which faces have a twin in Training, (N,) bool, or why nobody can say."""
    if not (faces.usages == USAGES.index("Training")).any():
        return "the data holds no Training faces in which to look for twins"
    return twins(faces, find(faces), usage="Training")


def _distinct(test: str, leaked: np.ndarray | str, which: np.ndarray) -> np.ndarray | str:
    """Return which faces of a test set have no twin in Training, or why that is not measured."""
    if isinstance(leaked, str):
        return leaked
    if "Training" in TESTS[test]:
        return "Training is what the network was trained on"
    distinct: np.ndarray = ~leaked[which]
    return distinct if distinct.any() else "every face has a twin in Training"


def _measured(
    logits: Tensor, labels: np.ndarray, distinct: np.ndarray | str
) -> tuple[dict[str, Evaluation], dict[str, Any]]:
    """Return the evaluations of the full and the de-duplicated test set, and both as JSON types."""
    full = measure(logits, labels)
    if isinstance(distinct, str):
        return {"full": full}, {**as_dict(full), "deduplicated": distinct}
    fewer = measure(logits[distinct], labels[distinct])
    twins = {"twins": full.count - fewer.count, "kinds of twins": list(KINDS)}
    deduplicated = {**twins, **as_dict(fewer)}
    return {"full": full, "distinct": fewer}, {**as_dict(full), "deduplicated": deduplicated}


def _described(
    path: Path, facts: dict[str, Any], test: str, inference: InferenceOptions
) -> dict[str, Any]:
    """Return what an evaluation is of, and how to repeat it."""
    config = weights.config_of(facts)
    in_run = (path.parent / "run.json").is_file()
    name = f"runs/{path.parent.name}/{path.name}" if in_run else path.name
    given = "" if path == weights.SHIPPED else f" --weights {name}"
    return {
        "weights": {"file": path.name, "sha256": digest(path)},
        "training": {k: v for k, v in facts.items() if k not in _OF_TRAINING},
        "network": config.network,
        "on": test,
        "selected on it": _selected_on(facts, test),
        "averaging": inference.averaging,
        "averaging in words": MEANINGS[str(inference.averaging)],
        "device": inference.device,
        "precision": inference.precision,
        "command": f"python -m fer2013 evaluate{given} --data DATA --split {test} "
        f"--averaging {inference.averaging} --precision {inference.precision}",
    }


def _selected_on(facts: dict[str, Any], test: str) -> bool:
    """Return whether a part of the test set chose the epoch, so that it flatters the network."""
    selected = str(facts.get("selected_on", ""))
    return any(usage in selected for usage in TESTS[test])


def _write(found: dict[str, Evaluation], values: dict[str, Any], folder: Path, title: str) -> None:
    """Write a test set's files together: on a full disk those of before all remain."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=folder.parent) as name:
        staged = Path(name)
        write(found["full"], staged, title)
        if "distinct" in found:
            write(found["distinct"], staged / "deduplicated", f"{title}, without twins")
        write_json(values, staged / "evaluation.json")
        for file in [p for p in staged.rglob("*") if p.is_file()]:
            place = folder / file.relative_to(staged)
            place.parent.mkdir(exist_ok=True)
            file.replace(place)


def _lines(found: dict[str, Evaluation], values: dict[str, Any]) -> Iterator[str]:
    """Say what was found on one test set."""
    full = found["full"]
    yield f"{values['on']}, {full.count:,} faces, {values['averaging in words']}\n"
    yield layout(full.report)
    yield f"\naccuracy      {_words(full)}"
    if "distinct" in found:
        count = values["deduplicated"]["twins"]
        yield f"de-duplicated {_words(found['distinct'])}, {count} with a twin in Training left out"
    else:
        yield f"de-duplicated: not measured, {values['deduplicated']}"
    if values["selected on it"]:
        yield "the epoch was chosen on these faces, so that the figures are a little kind"
    judged = full.calibration
    yield (
        f"calibration: expected error {judged.error:.3f}, log loss {judged.log_loss:.3f}, "
        f"Brier {judged.brier:.3f}"
    )
    yield f"{values['seconds']:.0f} s in {values['precision']} on {values['device']}"


def _words(evaluation: Evaluation) -> str:
    low, high = evaluation.interval
    return (
        f"{evaluation.accuracy:.2%} [{low:.2%}, {high:.2%}] (95%, Wilson), "
        f"{evaluation.correct:,} of {evaluation.count:,}"
    )
