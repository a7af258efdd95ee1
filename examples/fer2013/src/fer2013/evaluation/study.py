"""Evaluate a network on test sets, with and without duplicates of training images."""

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
from ..files import sha256, write_json
from ..networks import weights
from .accuracy import Evaluation, measure
from .predictions import MEANINGS, predict
from .records import default_folder, remember
from .report import layout, write

#: The default test sets, as far as the data has them.
DEFAULT = ("PublicTest", "PrivateTest")

# Facts of a weights file about the evaluation after its training, which a new one replaces.
_OF_TRAINING = ("report", "accuracy", "accuracy_on", "averaging", "classes")


@dataclasses.dataclass(frozen=True)
class InferenceOptions:
    """How to run a network.

    Attributes:
        averaging: one of :data:`fer2013.evaluation.predictions.MEANINGS`; None for that of the
            network's configuration.
        device: torch device.
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
    """Evaluate a network on test sets, write the results, and yield them as lines of text.

    Args:
        path: the weights file.
        faces: FER2013; its Training images show which test images are duplicates.
        tests: names out of :data:`fer2013.data.splits.TESTS`; default :data:`DEFAULT`.
        inference: how to run the network.
        out: output folder, with a folder for each test set and averaging; default "evaluation" in a
            run's folder, or ``out/evaluate/NAME``.
        record: the package's record to which to add the results.

    Raises:
        FileNotFoundError: there is no such weights file.
        ValueError: it is not one of this package, or the data lacks a test set.
    """
    facts, model = weights.read_facts(path), weights.load(path)
    config = weights.config_of(facts)
    if inference.averaging is None:
        inference = dataclasses.replace(inference, averaging=config.averaging)
    out = out or default_folder(path)
    # First of all, as missing test sets are errors.
    asked = {test: members(faces, test) for test in tests or _available(faces)}
    trained = faces.usages == USAGES.index("Training")
    leaked = twins(faces, find(faces)) if trained.any() else None
    for test in () if tests else DEFAULT:
        if test not in asked:
            yield f"{test}: not evaluated, as the data has none\n"
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


def _available(faces: Faces) -> list[str]:
    """Return the default test sets that the data has, at least one."""
    usages = {USAGES[usage] for usage in np.unique(faces.usages)}
    if not usages & set(DEFAULT):
        raise ValueError(
            f"the data has no {' and no '.join(DEFAULT)} images: choose a test set with "
            f"--split {' or '.join(sorted(usages))}"
        )
    return [test for test in DEFAULT if test in usages]


def _deduplicated(
    test: str, leaked: np.ndarray | None, logits: Tensor, labels: np.ndarray
) -> tuple[str, dict[str, Any] | str]:
    """Evaluate the images without duplicates in Training; return text and values, or the reason.

    Args:
        test: the test set.
        leaked: (N,) bool, which images have duplicates; None if unknown.
        logits: (N, 7).
        labels: (N,).
    """
    if leaked is None:
        reason = "the data has no Training images to compare with"
    elif "Training" in TESTS[test]:
        reason = "the network was trained on Training"
    elif leaked.all():
        reason = "every image has a duplicate in Training"
    else:
        fewer, count = measure(logits[~leaked], labels[~leaked]), int(leaked.sum())
        values = {"twins": count, "kinds of twins": list(KINDS), **fewer.as_dict()}
        return f"{fewer}, without {count} duplicates of Training images", values
    return f"not measured: {reason}", reason


def _described(
    path: Path, facts: dict[str, Any], test: str, inference: InferenceOptions
) -> dict[str, Any]:
    """Return the evaluation's network, test set, options and command."""
    in_run = (path.parent / "run.json").is_file()
    name = f"runs/{path.parent.name}/{path.name}" if in_run else path.name
    given = "" if path == weights.SHIPPED else f" --weights {name}"
    selected = str(facts.get("selected_on", ""))
    return {
        "weights": {"file": path.name, "sha256": sha256(path)},
        "training": {k: v for k, v in facts.items() if k not in _OF_TRAINING},
        "network": weights.config_of(facts).network,
        "on": test,
        # If the epoch was selected on part of the test set, the accuracy is too high.
        "selected on it": any(usage in selected for usage in TESTS[test]),
        **dataclasses.asdict(inference),
        "averaging in words": MEANINGS[str(inference.averaging)],
        "command": f"python -m fer2013 evaluate{given} --data DATA --split {test} "
        f"--averaging {inference.averaging} --precision {inference.precision}",
    }


def _write(found: Evaluation, values: dict[str, Any], folder: Path, title: str) -> None:
    """Write a test set's files all at once: on a full disk, the previous ones remain."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=folder.parent) as name:
        staged = Path(name)
        write(found, staged, title)
        write_json(values, staged / "evaluation.json")
        for file in list(staged.iterdir()):
            file.replace(folder / file.name)


def _lines(full: Evaluation, deduplicated: str, values: dict[str, Any]) -> Iterator[str]:
    yield f"{values['on']}, {full.count:,} faces, {values['averaging in words']}\n"
    yield layout(full.report)
    yield f"\naccuracy      {full}"
    yield f"de-duplicated {deduplicated}"
    if values["selected on it"]:
        yield "the epoch was selected on these images, so the accuracy is slightly too high"
    judged = full.calibration
    yield (
        f"calibration: expected error {judged['expected calibration error']:.3f}, "
        f"log loss {judged['log loss']:.3f}, Brier {judged['brier']:.3f}"
    )
    yield f"{values['seconds']:.0f} s in {values['precision']} on {values['device']}"
