"""FER+: the votes of ten people on each image, compared with labels that may be wrong.

Barsoum et al., "Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label
Distribution", ICMI 2016; ``fer2013new.csv`` of github.com/microsoft/FERPlus. Its rows correspond to
those of ``fer2013.csv``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data.faces import CLASSES, USAGES, Faces
from ..evaluation.accuracy import wilson

#: FER+'s columns and their classes; FER2013 lacks the last three.
COLUMNS = {
    "neutral": "neutral",
    "happiness": "happy",
    "surprise": "surprise",
    "sadness": "sad",
    "anger": "angry",
    "disgust": "disgust",
    "fear": "fear",
    "contempt": None,
    "unknown": None,
    "NF": None,
}

#: Results of :func:`majority` for ties, and for classes that FER2013 lacks.
TIED, OTHER = -2, -1


def read_votes(path: Path, faces: Faces) -> np.ndarray:
    """Return the votes on each image.

    Args:
        path: ``fer2013new.csv``.
        faces: images from ``fer2013.csv``, with at least one complete split.

    Returns:
        (N, 10) int64, a column for each of :data:`COLUMNS`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is another file, or its rows do not correspond to the images.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no FER+ votes at {path}: download fer2013new.csv from github.com/microsoft/FERPlus"
        )
    try:
        table = pd.read_csv(path)
    except ValueError as error:  # pandas' parser errors and undecodable bytes
        raise ValueError(f"{path} is not a CSV file of FER+'s votes: {error}") from error
    if missing := {"Usage", *COLUMNS} - set(table.columns):
        raise ValueError(f"{path} lacks FER+'s columns {sorted(missing)}: is it fer2013new.csv?")
    rows = _rows(path, table, faces)
    votes = table[list(COLUMNS)].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    wrong = ~(np.isfinite(votes) & (votes >= 0) & (votes == votes.round())).all(axis=1)
    if wrong.any():
        line = int(wrong.argmax()) + 2
        raise ValueError(f"{path}, line {line}: expected numbers of votes in {', '.join(COLUMNS)}")
    counts: np.ndarray = votes[rows].astype(np.int64)
    return counts


def _rows(path: Path, table: pd.DataFrame, faces: Faces) -> np.ndarray:
    """Return the table's row for each image, after checking that they correspond."""
    try:
        rows = faces.names.astype(np.int64)
    except ValueError as error:
        raise ValueError(
            "FER+'s votes refer to rows of fer2013.csv, and images in folders have no row numbers "
            f"({faces.names[0]}): pass the CSV file as --data"
        ) from error
    for index, usage in enumerate(USAGES):
        ours, total = int((faces.usages == index).sum()), int((table["Usage"] == usage).sum())
        # The rows of a subset would refer to other images.
        if ours and ours != total:
            raise ValueError(
                f"{path} has {total} {usage} rows and the data {ours} images: use the complete "
                "FER2013"
            )
    names = np.array(USAGES)[faces.usages]
    there = table["Usage"].reindex(rows, fill_value="no row").to_numpy()
    if (wrong := there != names).any():
        face = int(wrong.argmax())
        raise ValueError(
            f"{path}: row {rows[face]} is {there[face]}, but {names[face]} in the data: use both "
            "files in their original order"
        )
    return rows


def majority(votes: np.ndarray) -> np.ndarray:
    """Return the class with the most votes, (N,) int64; :data:`TIED`; or :data:`OTHER`.

    >>> votes = np.zeros((2, len(COLUMNS)), int)
    >>> votes[:, 0], votes[:, 1] = (9, 5), (1, 5)
    >>> majority(votes).tolist()
    [6, -2]
    """
    codes = np.array([OTHER if c is None else CLASSES.index(c) for c in COLUMNS.values()])
    first = codes[votes.argmax(axis=1)]
    alone = (votes == votes.max(axis=1, keepdims=True)).sum(axis=1) == 1
    winners: np.ndarray = np.where(alone, first, TIED)
    return winners


def contradiction(labels: np.ndarray, winners: np.ndarray) -> dict[str, Any]:
    """Count the labels that the votes contradict.

    Args:
        labels: (N,) classes.
        winners: (N,), see :func:`majority`.

    Returns:
        "decided", the number of images without a tie; "contradicted", the number of those with
        another winner than their label; "fraction" and its 95% Wilson "interval", or None;
        "tied"; and "text", a summary.
    """
    decided = winners != TIED
    count, wrong = int(decided.sum()), int((decided & (winners != labels)).sum())
    found = {"decided": count, "contradicted": wrong, "tied": len(labels) - count}
    if not count:
        return {**found, "fraction": None, "interval": None, "text": "0 of 0 (no votes decided)"}
    low, high = wilson(wrong, count)
    text = (
        f"{wrong} of {count} ({wrong / count:.1%}, 95% interval {low:.1%} to {high:.1%}; "
        f"{found['tied']} more are tied)"
    )
    return {**found, "fraction": wrong / count, "interval": [low, high], "text": text}
