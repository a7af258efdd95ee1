"""What an audit found, as a list of faces and as figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..data.duplicates import KINDS, Duplicates, conflicting, redundant, twins
from ..data.faces import CLASSES, USAGES, Faces
from .ferplus import OTHER, TIED, contradiction
from .label_issues import rank_confusions, verdict
from .out_of_sample import Judged

#: The kinds of twins that are counted together, each with those before it.
LEVELS = {"exact": KINDS[:1], "exact and near": KINDS[:2], "exact, near and mirrored": KINDS}


def listing(
    faces: Faces, duplicates: Duplicates, blank: np.ndarray, judged: Sequence[Judged]
) -> pd.DataFrame:
    """List everything that is wrong or doubtful, a row for each face and issue.

    Returns:
        Columns ``name``, ``usage``, ``given``, ``issue`` ("blank", "exact twin", "near twin",
        "mirrored twin", "conflicting twins", "label"), ``suggested`` (a class or empty), ``score``
        (the correlation with the best twin; the probability of the given label), ``group`` and
        ``twins`` (names of the group's other faces); ``row`` is the face's index.
    """
    rows: list[dict[str, Any]] = [{"row": i, "issue": "blank"} for i in np.flatnonzero(blank)]
    rows += _twin_rows(faces, duplicates)
    for one in judged:
        flagged = np.flatnonzero(one.issues.flagged)
        for place in flagged[np.argsort(one.issues.quality[flagged], kind="stable")]:
            rows.append(
                {
                    "row": one.where[place],
                    "issue": "label",
                    "suggested": CLASSES[one.issues.suggested[place]],
                    "score": one.issues.quality[place],
                }
            )
    columns = ["row", "issue", "suggested", "score", "group", "twins"]
    table = pd.DataFrame(rows, columns=columns).astype({"row": int, "group": "Int64"})
    where = table["row"].to_numpy()
    table.insert(1, "name", faces.names[where])
    table.insert(2, "usage", np.array(USAGES)[faces.usages[where]])
    table.insert(3, "given", np.array(CLASSES)[faces.labels[where]])
    return table


def _twin_rows(faces: Faces, duplicates: Duplicates) -> list[dict[str, Any]]:
    kind: dict[int, int] = {}
    best: dict[int, float] = {}
    numbers = (KINDS.index(str(name)) for name in duplicates.kinds)
    for pair, number, value in zip(
        duplicates.pairs.tolist(), numbers, duplicates.correlations.tolist(), strict=True
    ):
        for face in pair:
            kind[face] = min(kind.get(face, len(KINDS)), number)
            best[face] = max(best.get(face, 0.0), value)
    disagree = conflicting(faces, duplicates)
    rows = []
    for number, members in enumerate(duplicates.groups):
        counts = Counter(faces.labels[members].tolist()).most_common(2)
        alone = len(counts) == 1 or counts[0][1] > counts[1][1]
        for face in members.tolist():
            shared = {
                "row": face,
                "score": best[face],
                "group": number,
                "twins": ";".join(faces.names[members[members != face]]),
            }
            rows.append({**shared, "issue": f"{KINDS[kind[face]]} twin"})
            if disagree[number]:
                suggested = CLASSES[counts[0][0]] if alone else ""
                rows.append({**shared, "issue": "conflicting twins", "suggested": suggested})
    return rows


def name_winners(winners: np.ndarray) -> np.ndarray:
    """Return (N,) str: the class that FER+'s votes chose, "tied" or "other"."""
    names = {**dict(enumerate(CLASSES)), TIED: "tied", OTHER: "other"}
    return np.array([names[code] for code in winners.tolist()])


def twin_figures(faces: Faces, duplicates: Duplicates) -> dict[str, Any]:
    """Count groups within and across splits, leaked faces and conflicts, by :data:`LEVELS`."""
    figures = {}
    for level, kinds in LEVELS.items():
        some = duplicates.only(*kinds)
        splits = Counter(
            " + ".join(USAGES[usage] for usage in sorted(set(faces.usages[members].tolist())))
            for members in some.groups
        )
        leaked = twins(faces, some)
        figures[level] = {
            "groups": len(some.groups),
            "groups by splits": dict(sorted(splits.items())),
            "faces": int(sum(len(members) for members in some.groups)),
            "conflicting groups": int(conflicting(faces, some).sum()),
            "with a twin in Training": {
                usage: int(leaked[faces.usages == index].sum())
                for index, usage in enumerate(USAGES)
                if (faces.usages == index).any()
            },
            "redundant in Training": int(redundant(faces, some).sum()),
        }
    return figures


def label_figures(faces: Faces, judged: Judged, winners: np.ndarray | None) -> dict[str, Any]:
    """Count doubtful labels, and say what FER+'s votes make of them where they are there."""
    issues = judged.issues
    labels = faces.labels[judged.where]
    figures: dict[str, Any] = {
        "judged by": judged.how,
        "faces": len(judged.where),
        "left out": judged.left_out,
        "flagged": int(issues.flagged.sum()),
        "flagged fraction": float(issues.flagged.mean()),
        "accuracy": float((issues.suggested == labels).mean()),
        "flagged by given label": {
            name: int(issues.flagged[labels == index].sum()) for index, name in enumerate(CLASSES)
        },
        "confident joint": issues.joint.tolist(),
        "confusion": issues.confusion.tolist(),
        "surprise and neutral": verdict(rank_confusions(issues)),
    }
    if winners is not None:
        votes = winners[judged.where]
        kinds = {"flagged": issues.flagged, "not flagged": ~issues.flagged}
        figures["contradicted by FER+"] = {
            kind: _as_dict(labels[some], votes[some]) for kind, some in kinds.items()
        }
        agree = issues.flagged & (votes == issues.suggested)
        figures["contradicted by FER+"]["flagged, votes for the suggestion"] = int(agree.sum())
    return figures


def _as_dict(labels: np.ndarray, votes: np.ndarray) -> dict[str, Any]:
    found = contradiction(labels, votes)
    low, high = found.interval if found.count else (None, None)
    return {
        "decided": found.count,
        "contradicted": found.contradicted,
        "fraction": found.fraction if found.count else None,
        "interval": [low, high],
        "tied": found.tied,
        "text": str(found) if found.count else "no votes decided",
    }
