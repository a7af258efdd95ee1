"""What is wrong with the data: twins, blanks, doubtful labels; and an index without them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..configurations.config import Config
from ..configurations.recipes import CONFIGS
from ..data.duplicates import Duplicates, blanks, find, redundant
from ..data.faces import USAGES, Faces
from ..data.index import write_index
from ..files import write_csv, write_figure, write_json
from ..networks import weights
from ..training.train import Machine
from .ferplus import contradiction, majority, read_votes
from .label_issues import rank_confusions
from .out_of_sample import Judged, judge_tests, judge_training
from .sheets import duplicate_sheet, label_sheet
from .tables import label_figures, listing, name_winners, twin_figures

#: What an index can leave out of Training.
DROPS = ("duplicates", "blanks", "labels")

_ON_CPU = Machine(device="cpu")

# People agree with about 65% of FER2013's labels; what agrees with fewer than half is no judge.
_LEAST_RIGHT = 0.5


@dataclasses.dataclass(frozen=True)
class Plan:
    """What an audit does beyond looking for twins and blanks.

    Attributes:
        weights: the network that judges the test faces' labels.
        folds: how many networks judge Training's labels, each trained without its fold; 0 none.
        config: how those are trained.
        drop: what the index leaves out, out of :data:`DROPS`; empty writes no index.
        ferplus: FER+'s ``fer2013new.csv``.
        shown: how many faces and groups the sheets have.
        seed: of the folds and their training.
        machine: where everything is computed.
    """

    weights: Path = weights.SHIPPED
    folds: int = 0
    config: Config = CONFIGS["first"]
    drop: tuple[str, ...] = ()
    ferplus: Path | None = None
    shown: int = 10
    seed: int = 0
    machine: Machine = _ON_CPU


@dataclasses.dataclass(frozen=True)
class _Found:
    """All that is found, before anything of it is written."""

    duplicates: Duplicates
    blank: np.ndarray
    judged: list[Judged]
    winners: np.ndarray | None
    seconds: dict[str, float]


def audit(faces: Faces, out: Path, plan: Plan = Plan()) -> Iterator[str]:
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
    seconds: dict[str, float] = {}
    start = time.monotonic()
    duplicates = find(faces)
    seconds["twins"] = time.monotonic() - start
    yield f"{len(faces):,} faces; twins found in {seconds['twins']:.0f} s"
    blank = blanks(faces)
    start = time.monotonic()
    judged = [judge_tests(plan.weights, faces, duplicates, device=plan.machine.device)]
    seconds["test labels"] = time.monotonic() - start
    if plan.folds:
        start = time.monotonic()
        judged.append(_training(faces, duplicates, out, plan))
        seconds["Training labels"] = time.monotonic() - start
    found = _Found(duplicates, blank, [one for one in judged if one], winners, seconds)
    if "labels" in plan.drop:
        _check_judges(faces, found.judged[-1])
    # Before anything is written, so that a failure leaves an earlier audit as it was.
    start = time.monotonic()
    figures = _draw(faces, found, plan.shown)
    seconds["sheets"] = time.monotonic() - start
    summary = _summary(faces, found)
    yield from _say(summary)
    yield from _write(faces, found, summary, out)
    if plan.drop:
        reasons = _reasons(faces, found, plan.drop)
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


def _training(faces: Faces, duplicates: Duplicates, out: Path, plan: Plan) -> Judged:
    return judge_training(
        plan.config,
        faces,
        duplicates,
        out / "folds",
        folds=plan.folds,
        seed=plan.seed,
        machine=plan.machine,
    )


def _draw(faces: Faces, found: _Found, shown: int) -> dict[str, Figure]:
    drawn = {f"labels_{one.source}.png": label_sheet(faces, one, shown) for one in found.judged}
    drawn["twins.png"] = duplicate_sheet(faces, found.duplicates, shown)
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _summary(faces: Faces, found: _Found) -> dict[str, Any]:
    blank = {
        usage: int(found.blank[faces.usages == index].sum())
        for index, usage in enumerate(USAGES)
        if (faces.usages == index).any()
    }
    summary = {
        "faces": len(faces),
        "twins": twin_figures(faces, found.duplicates),
        "blank": blank,
        "labels": {one.source: label_figures(faces, one, found.winners) for one in found.judged},
        "confusions": {
            one.source: rank_confusions(one.issues).to_dict("records") for one in found.judged
        },
        "seconds": {name: round(value, 1) for name, value in found.seconds.items()},
    }
    if found.winners is not None:
        summary["all labels against FER+"] = str(contradiction(faces.labels, found.winners))
    return summary


def _say(summary: dict[str, Any]) -> Iterator[str]:
    for level, values in summary["twins"].items():
        splits = ", ".join(f"{n} in {name}" for name, n in values["groups by splits"].items())
        leaked = ", ".join(f"{n} {name}" for name, n in values["with a twin in Training"].items())
        yield f"\n{level} twins: {values['groups']} groups of {values['faces']} faces"
        if values["groups"]:
            yield f"  groups: {splits}; with conflicting labels: {values['conflicting groups']}"
            yield f"  faces with a twin in Training: {leaked}"
    yield f"\nblank: {', '.join(f'{n} {usage}' for usage, n in summary['blank'].items())}"
    for source, values in summary["labels"].items():
        yield f"\nlabels ({source}), judged by {values['judged by']}:"
        left_out = ", ".join(f"{n} {reason}" for reason, n in values["left out"].items())
        yield f"  {values['faces']} faces; left out: {left_out}"
        yield f"  the prediction is the label for {values['accuracy']:.1%} of them"
        if values["accuracy"] < _LEAST_RIGHT:
            yield "  that is too few to judge labels: what follows says little about them"
        yield f"  {values['flagged']} doubtful ({values['flagged fraction']:.1%})"
        table = pd.DataFrame(summary["confusions"][source]).head(8)
        yield table.to_string(index=False, float_format="{:.3f}".format)
        yield f"  {values['surprise and neutral']}"
        for kind, votes in values.get("contradicted by FER+", {}).items():
            said = votes["text"] if isinstance(votes, dict) else votes
            yield f"  FER+, {kind}: {said}" + (" contradicted" if isinstance(votes, dict) else "")
    if not summary["labels"]:
        yield "\nlabels: not judged, the data holds no test faces without twins, and no folds"
    if "all labels against FER+" in summary:
        yield f"\nFER+ contradicts {summary['all labels against FER+']} of all labels"


def _write(faces: Faces, found: _Found, summary: dict[str, Any], out: Path) -> Iterator[str]:
    table = listing(faces, found.duplicates, found.blank, found.judged)
    if found.winners is not None:
        table["ferplus"] = name_winners(found.winners)[table["row"]]
    write_csv(table.drop(columns="row"), out / "issues.csv")
    for one in found.judged:
        write_csv(rank_confusions(one.issues), out / f"confusions_{one.source}.csv")
    write_json(summary, out / "summary.json")
    yield f"\nissues.csv lists {len(table)} issues of {table['row'].nunique()} faces"


def _reasons(faces: Faces, found: _Found, drop: tuple[str, ...]) -> np.ndarray:
    """Return (N,) str: why the index leaves a face out; empty keeps it."""
    training = faces.usages == USAGES.index("Training")
    doubtful = np.zeros(len(faces), bool)
    for one in found.judged:
        doubtful[one.where[one.issues.flagged]] = True
    each = {
        "labels": doubtful,
        "blanks": found.blank,
        "duplicates": redundant(faces, found.duplicates),
    }
    reasons = np.full(len(faces), "", dtype="<U10")
    for name, which in each.items():
        if name in drop:
            reasons[which & training] = name
    return reasons
