"""The command ``audit``: find duplicates, blanks and label errors, and index all other images."""

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

#: What an index can drop from Training.
DROPS = ("duplicates", "blanks", "labels")

# People agree with about 65% of FER2013's labels; a network below 50% cannot judge labels.
_LEAST_RIGHT = 0.5


def audit(faces: Faces, out: Path, plan: Plan) -> Iterator[str]:
    """Audit FER2013, write the results, and yield them as lines of text.

    Args:
        faces: FER2013.
        out: the folder of ``issues.csv``, ``confusions_*.csv``, ``summary.json``, the sheets
            ``twins.png`` and ``labels_*.png``, ``index.csv`` if ``plan.drop`` is not empty, and the
            folds' runs (``folds``), from which a stopped audit resumes.
        plan: the options.

    Raises:
        FileNotFoundError: the weights or votes do not exist.
        ValueError: options contradict each other, or a file is invalid.
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
    # Compute everything before writing, so that an error leaves an earlier audit unchanged.
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
    yield from _lines(summary)
    write_csv(table.drop(columns="row"), out / "issues.csv")
    yield f"\nissues.csv has {len(table)} issues of {table['row'].nunique()} images"
    for one in judged:
        confusions = rank_confusions(one.issues)
        write_csv(confusions, out / f"confusions_{one.source}.csv")
        yield f"\nconfused labels ({one.source}):"
        yield confusions.head(8).to_string(index=False, float_format="{:.3f}".format)
    write_json(summary, out / "summary.json")
    if plan.drop:
        reasons = _reasons(faces, duplicates, judged, plan.drop)
        write_index(faces, reasons, out / "index.csv")
        dropped = int((reasons != "").sum())
        yield f"index.csv drops {dropped} of {(faces.usages == 0).sum()} Training images"
    for name, figure in figures.items():
        write_figure(figure, out / name)
    yield f"wrote {out}"
    if figures:
        yield f"{', '.join(figures)} contain FER2013 images: do not publish them"


def _check(plan: Plan) -> None:
    if unknown := [name for name in plan.drop if name not in DROPS]:
        raise ValueError(f"expected --drop as some of {', '.join(DROPS)}, got {', '.join(unknown)}")
    if "labels" in plan.drop and not plan.folds:
        raise ValueError(
            "--drop labels needs --folds: an index drops Training images, whose labels only folds "
            "judge"
        )
    if plan.folds < 0 or plan.folds == 1:
        raise ValueError(f"expected 0 folds, or at least 2, got {plan.folds}")
    if plan.shown < 1:
        raise ValueError(f"expected at least 1 image per sheet, got {plan.shown}")


def _check_judges(faces: Faces, judged: Judged) -> None:
    """Reject networks that are hardly trained, as most labels that they doubt are correct."""
    right = float((judged.issues.suggested == faces.labels[judged.where]).mean())
    if right < _LEAST_RIGHT:
        raise ValueError(
            f"expected networks that agree with at least {_LEAST_RIGHT:.0%} of the labels, got "
            f"{right:.1%}: train the folds longer, or do not drop labels"
        )


def _lines(summary: dict[str, Any]) -> Iterator[str]:
    for level, values in summary["twins"].items():
        yield f"\n{level} duplicates: {values['groups']} groups of {values['faces']} images"
        if values["groups"]:
            splits = _counts(values["groups by splits"])
            yield f"  groups: {splits}; with conflicting labels: {values['conflicting groups']}"
            yield f"  duplicates of Training images: {_counts(values['with a twin in Training'])}"
    yield f"\nblank: {_counts(summary['blank'])}"
    for source, values in summary["labels"].items():
        yield f"\nlabels ({source}), judged by {values['judged by']}:"
        yield f"  {values['faces']} images; excluded: {_counts(values['left out'])}"
        yield f"  the prediction agrees with {values['accuracy']:.1%} of the labels"
        if values["accuracy"] < _LEAST_RIGHT:
            yield "  this is too few to judge labels: the following results are unreliable"
        yield f"  {values['flagged']} likely errors ({values['flagged fraction']:.1%})"
        yield f"  {values['surprise and neutral']}"
        for kind, votes in values.get("contradicted by FER+", {}).items():
            yield f"  FER+, {kind}: {votes['text']} contradicted"
    if not summary["labels"]:
        yield "\nlabels: not judged, as there are no test images without duplicates, and no folds"


def _counts(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in numbers.items())


def _reasons(
    faces: Faces, duplicates: Duplicates, judged: Sequence[Judged], drop: tuple[str, ...]
) -> np.ndarray:
    """Return why the index drops each image, (N,) str; empty to keep it."""
    training = faces.usages == USAGES.index("Training")
    doubtful = np.zeros(len(faces), bool)
    for one in judged:
        doubtful[one.where[one.issues.flagged]] = True
    # Later reasons take precedence.
    each = {"labels": doubtful, "blanks": blanks(faces), "duplicates": redundant(faces, duplicates)}
    reasons = np.full(len(faces), "", dtype="<U10")
    for name, which in each.items():
        if name in drop:
            reasons[which & training] = name
    return reasons
