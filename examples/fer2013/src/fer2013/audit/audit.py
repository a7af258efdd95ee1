"""What is wrong with the data: twins, blanks, doubtful labels; and an index without them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.duplicates import Duplicates, blanks, find, redundant
from ..data.faces import CLASSES, USAGES, Faces
from ..data.index import write_index
from ..files import write_csv, write_figure, write_json
from ..networks import weights
from .ferplus import majority, read_votes
from .label_issues import rank_confusions
from .out_of_sample import Judged, Plan, judge_tests, judge_training
from .sheets import duplicate_sheet, label_sheet
from .tables import by_split, label_figures, listing, twin_figures

#: What an index can leave out of Training.
DROPS = ("duplicates", "blanks", "labels")

# People agree with about 65% of FER2013's labels; what agrees with fewer than half is no judge.
_LEAST_RIGHT = 0.5


def audit(faces: Faces, out: Path, plan: Plan) -> Iterator[str]:
    """Audit FER2013, write what is found, and say it line by line.

    Writes ``issues.csv``, ``confusions_*.csv``, ``summary.json``, the sheets ``twins.png`` and
    ``labels_*.png``, and with ``plan.drop`` an ``index.csv`` for ``train --index``. The folds' runs
    are kept in ``folds``, where a stopped one goes on.

    Args:
        faces: FER2013.
        out: the folder.
        plan: what is done.

    Raises:
        FileNotFoundError: weights or votes are not there.
        ValueError: the plan does not go together, or a file is not what it should be.
    """
    _check(plan)
    weights.read_facts(plan.weights)
    winners = None if plan.ferplus is None else majority(read_votes(plan.ferplus, faces))
    yield f"{len(faces):,} faces"
    duplicates, blank = find(faces), blanks(faces)
    tests = judge_tests(faces, duplicates, plan)
    judged = [] if tests is None else [tests]
    if plan.folds:
        judged.append(judge_training(faces, duplicates, out / "folds", plan))
    if "labels" in plan.drop:
        _check_judges(faces, judged[-1])
    # Before anything is written, so that a failure leaves an earlier audit as it was.
    drawn = {f"labels_{one.source}.png": label_sheet(faces, one, plan.shown) for one in judged}
    drawn["twins.png"] = duplicate_sheet(faces, duplicates, plan.shown)
    figures = {name: figure for name, figure in drawn.items() if figure is not None}
    summary: dict[str, Any] = {
        "faces": len(faces),
        "twins": twin_figures(faces, duplicates),
        "blank": by_split(faces, blank),
        "labels": {one.source: label_figures(faces, one, winners) for one in judged},
    }
    table = listing(faces, duplicates, blank, judged)
    if winners is not None:
        # ferplus.TIED is -2 and OTHER -1.
        table["ferplus"] = np.array([*CLASSES, "tied", "other"])[winners[table["row"]]]
    yield from _say(summary)
    write_csv(table.drop(columns="row"), out / "issues.csv")
    yield f"\nissues.csv lists {len(table)} issues of {table['row'].nunique()} faces"
    for one in judged:
        confusions = rank_confusions(one.issues)
        write_csv(confusions, out / f"confusions_{one.source}.csv")
        yield f"\nconfusions of labels ({one.source}):"
        yield confusions.head(8).to_string(index=False, float_format="{:.3f}".format)
    write_json(summary, out / "summary.json")
    if plan.drop:
        reasons = _reasons(faces, duplicates, judged, plan.drop)
        write_index(faces, reasons, out / "index.csv")
        left = int((reasons != "").sum())
        yield f"index.csv leaves out {left} of {(faces.usages == 0).sum()} Training faces"
    for name, figure in figures.items():
        write_figure(figure, out / name)
    yield f"wrote {out}"
    if figures:
        yield f"{', '.join(figures)} show FER2013 faces: they must not be published"


def _check(plan: Plan) -> None:
    if unknown := [name for name in plan.drop if name not in DROPS]:
        raise ValueError(f"expected to drop some of {', '.join(DROPS)}, got {', '.join(unknown)}")
    if "labels" in plan.drop and not plan.folds:
        raise ValueError(
            "the index leaves out Training faces only, and their labels are judged by folds: "
            "give --folds, or drop no labels"
        )
    if plan.folds < 0 or plan.folds == 1:
        raise ValueError(f"expected 0 folds, or 2 and more, got {plan.folds}")
    if plan.shown < 1:
        raise ValueError(f"expected at least 1 face a sheet, got {plan.shown}")


def _check_judges(faces: Faces, judged: Judged) -> None:
    """Refuse to drop the labels that hardly trained networks doubt, most of which are right."""
    right = float((judged.issues.suggested == faces.labels[judged.where]).mean())
    if right < _LEAST_RIGHT:
        raise ValueError(
            f"expected networks that agree with at least {_LEAST_RIGHT:.0%} of the labels to drop "
            f"others, got {right:.1%}: train the folds longer, or drop no labels"
        )


def _say(summary: dict[str, Any]) -> Iterator[str]:
    for level, values in summary["twins"].items():
        yield f"\n{level} twins: {values['groups']} groups of {values['faces']} faces"
        if values["groups"]:
            splits = _counts(values["groups by splits"])
            yield f"  groups: {splits}; with conflicting labels: {values['conflicting groups']}"
            yield f"  faces with a twin in Training: {_counts(values['with a twin in Training'])}"
    yield f"\nblank: {_counts(summary['blank'])}"
    for source, values in summary["labels"].items():
        yield f"\nlabels ({source}), judged by {values['judged by']}:"
        yield f"  {values['faces']} faces; left out: {_counts(values['left out'])}"
        yield f"  the prediction is the label for {values['accuracy']:.1%} of them"
        if values["accuracy"] < _LEAST_RIGHT:
            yield "  that is too few to judge labels: what follows says little about them"
        yield f"  {values['flagged']} doubtful ({values['flagged fraction']:.1%})"
        yield f"  {values['surprise and neutral']}"
        for kind, votes in values.get("contradicted by FER+", {}).items():
            yield f"  FER+, {kind}: {votes['text']} contradicted"
    if not summary["labels"]:
        yield "\nlabels: not judged, the data holds no test faces without twins, and no folds"


def _counts(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in numbers.items())


def _reasons(
    faces: Faces, duplicates: Duplicates, judged: Sequence[Judged], drop: tuple[str, ...]
) -> np.ndarray:
    """Return (N,) str: why the index leaves a face out; empty keeps it."""
    training = faces.usages == USAGES.index("Training")
    doubtful = np.zeros(len(faces), bool)
    for one in judged:
        doubtful[one.where[one.issues.flagged]] = True
    # A later reason takes an earlier one's place.
    each = {"labels": doubtful, "blanks": blanks(faces), "duplicates": redundant(faces, duplicates)}
    reasons = np.full(len(faces), "", dtype="<U10")
    for name, which in each.items():
        if name in drop:
            reasons[which & training] = name
    return reasons
