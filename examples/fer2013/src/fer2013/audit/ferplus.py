"""FER+: ten people's votes on each face of FER2013, against the flagged labels.

Barsoum et al., "Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label
Distribution", ICMI 2016; ``fer2013new.csv`` of github.com/microsoft/FERPlus. Row i belongs to row i
of ``fer2013.csv``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data.faces import CLASSES, USAGES, Faces
from ..evaluation.accuracy import wilson

#: FER+'s columns and the class of each; the last three are none of FER2013's.
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

#: What :func:`majority` says where no class has the most votes, and where the most are for none.
TIED, OTHER = -2, -1


def read_votes(path: Path, faces: Faces) -> np.ndarray:
    """Return the votes on faces.

    Args:
        path: ``fer2013new.csv``.
        faces: from a CSV file, all of at least one official split.

    Returns:
        (N, 10) int64 votes by :data:`COLUMNS`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is another file, the faces' names are no row numbers, or its rows belong to
            other faces.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no FER+ votes at {path}: fer2013new.csv is at github.com/microsoft/FERPlus"
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
    """Return the row of each face, if the rows are these faces'."""
    try:
        rows = faces.names.astype(np.int64)
    except ValueError as error:
        raise ValueError(
            "FER+'s votes belong to the rows of fer2013.csv, and the faces of folders have no row "
            f"numbers ({faces.names[0]}): give the CSV file as --data"
        ) from error
    for index, usage in enumerate(USAGES):
        ours, total = int((faces.usages == index).sum()), int((table["Usage"] == usage).sum())
        # A subset's rows would be other faces', without a word.
        if ours and ours != total:
            raise ValueError(
                f"{path} has {total} {usage} rows and the data {ours} faces: the votes belong to "
                "the whole of FER2013, row by row"
            )
    names = np.array(USAGES)[faces.usages]
    there = table["Usage"].reindex(rows, fill_value="no row").to_numpy()
    if (wrong := there != names).any():
        face = int(wrong.argmax())
        raise ValueError(
            f"{path}: row {rows[face]} is {names[face]} in the data and {there[face]} here, so its "
            "rows are other faces': take the original order of both files"
        )
    return rows


def majority(votes: np.ndarray) -> np.ndarray:
    """Return (N,) int64: the class with the most votes, :data:`TIED`, or :data:`OTHER`.

    The last is for contempt, "unknown" and "no face", which FER2013 has no label for.

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
        labels: (N,) given classes.
        winners: (N,) as :func:`majority` returns them.

    Returns:
        "decided", the faces on which the votes have one winner; "contradicted", those of them whose
        winner is not the given label; "fraction" and its 95% Wilson "interval", None of no faces;
        "tied", the other faces; "text", all of it in words.
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
