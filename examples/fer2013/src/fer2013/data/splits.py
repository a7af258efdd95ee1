"""Which faces are trained on, which select, and which are looked at once."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from sklearn.model_selection import train_test_split

from .faces import CLASSES, USAGES, Faces

#: What each split is, in words.
MEANINGS = {
    "standard": "trained on Training, selected on PublicTest; PrivateTest is looked at once",
    "deck": "a stratified 80/20 of Training; PublicTest and PrivateTest are the test",
}

#: What a finished network is tested on, and the official splits of each. The deck's test is both.
TESTS = {
    **{usage: (usage,) for usage in USAGES},
    "deck-test": ("PublicTest", "PrivateTest"),
}


@dataclasses.dataclass(frozen=True)
class Parts:
    """The faces of one run."""

    train: Faces
    validation: Faces


def divide(faces: Faces, split: str, *, seed: int = 0) -> Parts:
    """Return the faces to train on and to select on.

    Args:
        faces: FER2013.
        split: "standard" or "deck"; see :data:`MEANINGS`.
        seed: of the deck's stratified draw.

    Raises:
        ValueError: the split is unknown, the official split that it needs is missing, or a class
            is missing among the faces to train on.
    """
    if split not in MEANINGS:
        raise ValueError(f"expected a split out of {', '.join(MEANINGS)}, got {split!r}")
    train = faces.split("Training")
    counts = np.bincount(train.labels, minlength=len(CLASSES))
    least = 1 if split == "standard" else 2
    if lacking := [name for name, n in zip(CLASSES, counts, strict=True) if n < least]:
        raise ValueError(
            f"expected at least {least} Training faces of each class, too few are "
            f"{', '.join(lacking)}: is this the whole of FER2013?"
        )
    if split == "standard":
        return Parts(train, faces.split("PublicTest"))
    if math.ceil(len(train) / 5) < len(CLASSES):
        raise ValueError(
            f"expected a fifth of Training in which every class has a face, got {len(train)} "
            "Training faces: is this the whole of FER2013?"
        )
    rows = np.arange(len(train))
    kept, held = train_test_split(rows, test_size=0.2, stratify=train.labels, random_state=seed)
    return Parts(train.take(np.sort(kept)), train.take(np.sort(held)))


def members(faces: Faces, test: str) -> np.ndarray:
    """Return which faces a test set consists of, (N,) bool.

    Args:
        faces: FER2013.
        test: one of :data:`TESTS`.

    Raises:
        ValueError: the name is unknown, or an official split that it needs is missing. Another
            one never takes its place.
    """
    if test not in TESTS:
        raise ValueError(f"expected a test set out of {', '.join(TESTS)}, got {test!r}")
    usages = [USAGES.index(usage) for usage in TESTS[test]]
    if absent := [USAGES[usage] for usage in usages if not (faces.usages == usage).any()]:
        raise ValueError(
            f"{test} needs {' and '.join(TESTS[test])}, and the data holds no "
            f"{' and no '.join(absent)} faces: is this the whole of FER2013?"
        )
    which: np.ndarray = np.isin(faces.usages, usages)
    return which
