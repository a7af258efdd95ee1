"""Which faces are trained on, which select, and which are looked at once."""

from __future__ import annotations

import dataclasses

import numpy as np
from sklearn.model_selection import train_test_split

from .data import CLASSES, Faces

#: What each split is, in words.
MEANINGS = {
    "standard": "trained on Training, selected on PublicTest; PrivateTest is looked at once",
    "deck": "a stratified 80/20 of Training; PublicTest and PrivateTest are the test",
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
    rows = np.arange(len(train))
    kept, held = train_test_split(rows, test_size=0.2, stratify=train.labels, random_state=seed)
    return Parts(train.take(np.sort(kept)), train.take(np.sort(held)))


def test_faces(faces: Faces, split: str) -> dict[str, Faces]:
    """Return what a finished network is tested on: by name, those official splits that are there.

    The deck's test is both PublicTest and PrivateTest; the standard one is PrivateTest alone, and
    PublicTest is returned too, since it is what published figures and this project select on.
    """
    if split not in MEANINGS:
        raise ValueError(f"expected a split out of {', '.join(MEANINGS)}, got {split!r}")
    there = {
        name: faces.usages == i for i, name in enumerate(("Training", "PublicTest", "PrivateTest"))
    }
    parts = {
        name: faces.take(np.flatnonzero(there[name])) for name in ("PublicTest", "PrivateTest")
    }
    found = {name: part for name, part in parts.items() if len(part)}
    if split == "deck" and len(found) == 2:
        both = np.flatnonzero(there["PublicTest"] | there["PrivateTest"])
        found = {"PublicTest + PrivateTest": faces.take(both), **found}
    return found
