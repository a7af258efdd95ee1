"""The results of an audit: a table of issues, and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..data.duplicates import KINDS, Duplicates, conflicting, redundant, twins
from ..data.faces import CLASSES, USAGES, Faces
from .ferplus import contradiction
from .label_issues import rank_confusions, verdict
from .out_of_sample import Judged

#: Cumulative kinds of duplicates, which are counted together.
LEVELS = {"exact": KINDS[:1], "exact and near": KINDS[:2], "exact, near and mirrored": KINDS}


def listing(
    faces: Faces, duplicates: Duplicates, blank: np.ndarray, judged: Sequence[Judged]
) -> pd.DataFrame:
    """List all issues, with a row for each image and issue.

    Returns:
        Columns ``row`` (the image's index), ``name``, ``usage``, ``given`` (the label), ``issue``
        ("blank", "exact twin", "near twin", "mirrored twin", "conflicting twins", "label"),
        ``suggested`` (a class or empty), ``score`` (the correlation with the best duplicate, or the
        probability of the label), ``group`` and ``twins`` (names of the group's other images).
    """
    rows: list[dict[str, Any]] = [{"row": i, "issue": "blank"} for i in np.flatnonzero(blank)]
    rows += _twin_rows(faces, duplicates)
    for one in judged:
        for place in one.issues.doubtful:
            suggested, quality = CLASSES[one.issues.suggested[place]], one.issues.quality[place]
            issue = {"issue": "label", "suggested": suggested, "score": quality}
            rows.append({"row": one.where[place], **issue})
    columns = ["row", "issue", "suggested", "score", "group", "twins"]
    table = pd.DataFrame(rows, columns=columns).astype({"row": int, "group": "Int64"})
    where = table["row"].to_numpy()
    table.insert(1, "name", faces.names[where])
    table.insert(2, "usage", np.array(USAGES)[faces.usages[where]])
    table.insert(3, "given", np.array(CLASSES)[faces.labels[where]])
    return table


def _twin_rows(faces: Faces, duplicates: Duplicates) -> list[dict[str, Any]]:
    kinds = [KINDS.index(str(name)) for name in duplicates.kinds]
    pairs = pd.DataFrame({"kind": kinds, "correlation": duplicates.correlations})
    # The closest kind of each image, and its highest correlation.
    both = pd.concat([pairs.assign(face=duplicates.pairs[:, side]) for side in (0, 1)])
    best = both.groupby("face").agg({"kind": "min", "correlation": "max"})
    disagree = conflicting(faces, duplicates)
    rows = []
    for number, members in enumerate(duplicates.groups):
        frequent = pd.Series(faces.labels[members]).mode()
        for face in members.tolist():
            shared = {
                "row": face,
                "score": best["correlation"][face],
                "group": number,
                "twins": ";".join(faces.names[members[members != face]]),
            }
            rows.append({**shared, "issue": f"{KINDS[best['kind'][face]]} twin"})
            if disagree[number]:
                suggested = CLASSES[frequent[0]] if len(frequent) == 1 else ""
                rows.append({**shared, "issue": "conflicting twins", "suggested": suggested})
    return rows


def by_split(faces: Faces, which: np.ndarray) -> dict[str, int]:
    """Count selected images, (N,) bool, by official split."""
    there = np.unique(faces.usages)
    return {USAGES[usage]: int(which[faces.usages == usage].sum()) for usage in there}


def twin_figures(faces: Faces, duplicates: Duplicates) -> dict[str, Any]:
    """Count groups by splits, images, leaks and conflicts, by :data:`LEVELS`."""
    figures = {}
    for level, kinds in LEVELS.items():
        some = duplicates.only(*kinds)
        splits = Counter(
            " + ".join(USAGES[usage] for usage in np.unique(faces.usages[members]))
            for members in some.groups
        )
        figures[level] = {
            "groups": len(some.groups),
            "groups by splits": dict(sorted(splits.items())),
            "faces": sum(len(members) for members in some.groups),
            "conflicting groups": int(conflicting(faces, some).sum()),
            "with a twin in Training": by_split(faces, twins(faces, some)),
            "redundant in Training": int(redundant(faces, some).sum()),
        }
    return figures


def label_figures(faces: Faces, judged: Judged, winners: np.ndarray | None) -> dict[str, Any]:
    """Count likely label errors, and compare them with FER+'s votes if given."""
    issues, labels = judged.issues, faces.labels[judged.where]
    figures: dict[str, Any] = {
        "judged by": judged.how,
        "faces": len(judged.where),
        "left out": judged.left_out,
        "flagged": int(issues.flagged.sum()),
        "flagged fraction": float(issues.flagged.mean()),
        "accuracy": float((issues.suggested == labels).mean()),
        "surprise and neutral": verdict(rank_confusions(issues)),
    }
    if winners is not None:
        votes = winners[judged.where]
        figures["contradicted by FER+"] = {
            kind: contradiction(labels[some], votes[some])
            for kind, some in (("flagged", issues.flagged), ("not flagged", ~issues.flagged))
        }
        agree = issues.flagged & (votes == issues.suggested)
        figures["flagged, and FER+ votes for the suggestion"] = int(agree.sum())
    return figures
