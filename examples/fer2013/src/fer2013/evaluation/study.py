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
from ..data.faces import USAGES, Faces
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
    asked = {test: members(faces, test) for test in tests or _there(faces)}
    trained = faces.usages == USAGES.index("Training")
    leaked = twins(faces, find(faces)) if trained.any() else None
    for test in () if tests else DEFAULT:
        if test not in asked:
            yield f"{test}: the data holds none, so it is not measured\n"
    for test, which in asked.items():
        some, start = faces.take(which), time.monotonic()
        crop = config.augmentation.crop
        logits = predict(model, some, crop=crop, **dataclasses.asdict(inference))
        seconds = round(time.monotonic() - start, 1)
        full = measure(logits, some.labels)
        known = None if leaked is None else leaked[which]
        words, deduplicated = _deduplicated(test, known, logits, some.labels)
        values = {
            **_described(path, facts, test, inference),
            **full.as_dict(),
            "deduplicated": deduplicated,
            "seconds": seconds,
        }
        folder = out / f"{test}-{inference.averaging}"
        _write(full, values, folder, f"{config.name} on {test}, {inference.averaging}")
        yield from _lines(full, words, values)
        yield f"wrote {folder}\n"
        if record is not None:
            remember(values, record)
            yield f"recorded in {record}\n"


def _there(faces: Faces) -> list[str]:
    """Return the default test sets that the data has."""
    usages = {USAGES[usage] for usage in np.unique(faces.usages)}
    if not usages & set(DEFAULT):
        raise ValueError(
            f"the data holds no {' and no '.join(DEFAULT)} faces: name what to measure on, "
            f"--split {' or '.join(sorted(usages))}"
        )
    return [test for test in DEFAULT if test in usages]


def _deduplicated(
    test: str, leaked: np.ndarray | None, logits: Tensor, labels: np.ndarray
) -> tuple[str, dict[str, Any] | str]:
    """Return what is measured without the faces with a twin in Training, or why nothing is.

    Args:
        test: the test set.
        leaked: (N,) bool, which of its faces have a twin; None where that is not known.
        logits: (N, 7).
        labels: (N,).
    """
    if leaked is None:
        reason = "the data holds no Training faces in which to look for twins"
    elif "Training" in TESTS[test]:
        reason = "Training is what the network was trained on"
    elif leaked.all():
        reason = "every face has a twin in Training"
    else:
        fewer, count = measure(logits[~leaked], labels[~leaked]), int(leaked.sum())
        values = {"twins": count, "kinds of twins": list(KINDS), **fewer.as_dict()}
        return f"{fewer}, {count} with a twin in Training left out", values
    return f"not measured, {reason}", reason


def _described(
    path: Path, facts: dict[str, Any], test: str, inference: InferenceOptions
) -> dict[str, Any]:
    """Return what an evaluation is of, and how to repeat it."""
    in_run = (path.parent / "run.json").is_file()
    name = f"runs/{path.parent.name}/{path.name}" if in_run else path.name
    given = "" if path == weights.SHIPPED else f" --weights {name}"
    selected = str(facts.get("selected_on", ""))
    return {
        "weights": {"file": path.name, "sha256": digest(path)},
        "training": {k: v for k, v in facts.items() if k not in _OF_TRAINING},
        "network": weights.config_of(facts).network,
        "on": test,
        # If a part of the test set chose the epoch, the figures flatter the network.
        "selected on it": any(usage in selected for usage in TESTS[test]),
        **dataclasses.asdict(inference),
        "averaging in words": MEANINGS[str(inference.averaging)],
        "command": f"python -m fer2013 evaluate{given} --data DATA --split {test} "
        f"--averaging {inference.averaging} --precision {inference.precision}",
    }


def _write(found: Evaluation, values: dict[str, Any], folder: Path, title: str) -> None:
    """Write a test set's files together: on a full disk those of before all remain."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=folder.parent) as name:
        staged = Path(name)
        write(found, staged, title)
        write_json(values, staged / "evaluation.json")
        for file in list(staged.iterdir()):
            file.replace(folder / file.name)


def _lines(full: Evaluation, deduplicated: str, values: dict[str, Any]) -> Iterator[str]:
    """Say what was found on one test set."""
    yield f"{values['on']}, {full.count:,} faces, {values['averaging in words']}\n"
    yield layout(full.report)
    yield f"\naccuracy      {full}"
    yield f"de-duplicated {deduplicated}"
    if values["selected on it"]:
        yield "the epoch was chosen on these faces, so that the figures are a little kind"
    judged = full.calibration
    yield (
        f"calibration: expected error {judged['expected calibration error']:.3f}, "
        f"log loss {judged['log loss']:.3f}, Brier {judged['brier']:.3f}"
    )
    yield f"{values['seconds']:.0f} s in {values['precision']} on {values['device']}"
