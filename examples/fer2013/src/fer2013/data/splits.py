"""Training, validation and test splits: FER2013's official ones and the slide deck's."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from sklearn.model_selection import train_test_split

from .faces import CLASSES, USAGES, Faces

#: Test sets by name, as official splits. The slide deck tests on both test splits together.
TESTS = {
    **{usage: (usage,) for usage in USAGES},
    "deck-test": ("PublicTest", "PrivateTest"),
}


@dataclasses.dataclass(frozen=True)
class Parts:
    """The images of one training run."""

    train: Faces
    validation: Faces


def divide(faces: Faces, split: str, *, seed: int = 0) -> Parts:
    """Split FER2013 into training and validation images.

    Args:
        faces: FER2013.
        split: "standard" trains on Training and validates on PublicTest. "deck" draws a stratified
            80/20 split of Training; its test set is PublicTest and PrivateTest together.
        seed: seed of the deck's split.

    Raises:
        ValueError: the split is unknown, an official split is missing, or Training has too few
            images of a class.
    """
    if split not in ("standard", "deck"):
        raise ValueError(f"expected the split 'standard' or 'deck', got {split!r}")
    train = faces.split("Training")
    counts = np.bincount(train.labels, minlength=len(CLASSES))
    least = 1 if split == "standard" else 2
    if lacking := [name for name, n in zip(CLASSES, counts, strict=True) if n < least]:
        raise ValueError(
            f"expected at least {least} Training images of each class, got fewer of "
            f"{', '.join(lacking)}: is this the whole of FER2013?"
        )
    if split == "standard":
        return Parts(train, faces.split("PublicTest"))
    if math.ceil(len(train) / 5) < len(CLASSES):
        raise ValueError(
            f"expected enough Training images for a fifth with all {len(CLASSES)} classes, got "
            f"{len(train)}: is this the whole of FER2013?"
        )
    rows = np.arange(len(train))
    kept, held = train_test_split(rows, test_size=0.2, stratify=train.labels, random_state=seed)
    return Parts(train.take(np.sort(kept)), train.take(np.sort(held)))


def members(faces: Faces, test: str) -> np.ndarray:
    """Return which images belong to a test set out of :data:`TESTS`, (N,) bool.

    Raises:
        ValueError: an official split that the test set needs is missing.
    """
    usages = [USAGES.index(usage) for usage in TESTS[test]]
    if absent := [USAGES[usage] for usage in usages if not (faces.usages == usage).any()]:
        raise ValueError(
            f"{test} needs {' and '.join(TESTS[test])}, but the data has no "
            f"{' and no '.join(absent)} images: is this the whole of FER2013?"
        )
    which: np.ndarray = np.isin(faces.usages, usages)
    return which
