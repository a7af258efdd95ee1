"""What leakage does to validation accuracy: two ways in which it comes about, each with a control.

Copies: FER2013 holds many faces more than once. A split that ignores that trains on one copy and
validates on another; the control keeps all copies of a face on one side.

A redrawn split: a network goes on from weights that were trained with another draw of the split, so
that most of its validation faces were trained on before; the control goes on with the same draw.

Only the split differs within a pair: the same faces (the copies) or the same weights to start from
(the redrawn split), the same network and recipe. The network is BaseCNN on faces of 24x24 pixels,
which costs a quarter and memorises as well; its accuracies are no results on FER2013.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from ..data.duplicates import find
from ..data.faces import USAGES, Faces
from ..evaluation.accuracy import wilson
from ..files import write_csv, write_figure
from .report import draw, sentences
from .runs import Plan, right, train_and_judge

_HELD = 0.2
# The warm start takes this part of the faces, for it trains three times a seed.
_FEWER = 0.6


def experiment(faces: Faces, out: Path, plan: Plan) -> Iterator[str]:
    """Carry out both experiments; a stopped one goes on where it was.

    Args:
        faces: FER2013 with Training and PublicTest; PrivateTest is not looked at.
        out: the folder of the runs, ``leakage.csv`` (each run), ``summary.csv`` and
            ``leakage.png``.
        plan: how large it is.

    Yields:
        What was found, a line each.

    Raises:
        ValueError: no face has a copy, an official split is missing, or ``out`` holds runs of
            another plan.
    """
    training = faces.split("Training")
    looked_at = faces.take(faces.usages != USAGES.index("PrivateTest"))
    groups = find(looked_at).group_of(len(looked_at))
    own = groups[looked_at.usages == USAGES.index("Training")]
    # Faces with copies stay out of the second experiment, so that nothing else leaks.
    only = looked_at.take(np.bincount(groups)[groups] == 1)
    rows = []
    for seed in range(plan.seeds):
        rows += copies_across(training, own, out / f"copies_{seed}", plan, seed=seed)
        rows += redrawn_split(only, out / f"redrawn_{seed}", plan, seed=seed)
    runs = pd.DataFrame(rows)
    write_csv(runs, out / "leakage.csv")
    summary = summarize(runs)
    write_csv(summary, out / "summary.csv")
    write_figure(draw(runs, summary), out / "leakage.png", dpi=120)
    yield from sentences(runs, summary, copied_share(own))
    yield f"wrote {out}"


def copied_share(groups: np.ndarray) -> float:
    """Return what part of a held-out fifth has a copy in the rest, on average over all draws.

    Each of a face's g - 1 copies is held out too with a probability of a fifth.
    """
    sizes = np.bincount(groups)[groups]
    return float((1 - _HELD ** (sizes - 1.0)).mean())


def copies_across(
    faces: Faces, groups: np.ndarray, out: Path, plan: Plan, *, seed: int
) -> list[dict[str, Any]]:
    """Validate with copies on both sides, and with copies kept together.

    Args:
        faces: of Training.
        groups: (N,) numbers; the same photograph has the same one.
        out: the folder of the two runs.
        plan: how large it is.
        seed: of everything random.

    Returns:
        A row for each split and kind of validation face.
    """
    copied = np.bincount(groups)[groups] > 1
    chosen = _enriched(groups, plan.faces, np.random.default_rng((seed, 1)))
    part, own, copied = faces.take(chosen), groups[chosen], copied[chosen]
    rows = []
    for arm, held in (
        ("copies on both sides", _held_out(part, seed)),
        ("copies kept together", _held_groups(part, own, seed)),
    ):
        _, correct = train_and_judge(part, held, out / arm.replace(" ", "_"), plan, seed)
        leaked = np.isin(own[held], np.delete(own, held))
        kinds = {
            "all validation faces": np.ones(len(held), bool),
            "a copy was trained on": leaked,
            "copied, no copy was trained on": copied[held] & ~leaked,
            "without copies": ~copied[held],
        }
        rows += _rows("copies", arm, seed, correct, kinds)
    return rows


def _enriched(groups: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Return the indices of random faces, up to half of them with copies, in whole groups."""
    sizes = np.bincount(groups)[groups]
    twins, single = np.flatnonzero(sizes > 1), np.flatnonzero(sizes == 1)
    if not len(twins):
        raise ValueError("no Training face has a copy that could leak: is this all of FER2013?")
    place = random.permutation(groups.max() + 1)[groups[twins]]
    twins = twins[np.argsort(place, kind="stable")][: count // 2]
    others = random.permutation(single)[: count - len(twins)]
    return np.sort(np.concatenate([twins, others]))


def redrawn_split(faces: Faces, out: Path, plan: Plan, *, seed: int) -> list[dict[str, Any]]:
    """Go on from trained weights with another draw of the split, and with the same one.

    Args:
        faces: of Training and of PublicTest, without copies; PublicTest neither trains nor selects.
        out: the folder of the three runs.
        plan: how large it is.
        seed: of everything random.

    Returns:
        A row for each run and kind of face.
    """
    unseen, training = faces.split("PublicTest"), faces.split("Training")
    chosen = np.random.default_rng((seed, 2)).permutation(len(training))
    part = training.take(np.sort(chosen[: int(_FEWER * plan.faces)]))
    first = _held_out(part, seed)
    start = "none"
    rows = []
    for arm, held in (
        ("one training", first),
        ("goes on, same split", first),
        ("goes on, redrawn split", _held_out(part, seed + 1000)),
    ):
        folder = out / arm.replace(", ", "_").replace(" ", "_")
        path, correct = train_and_judge(part, held, folder, plan, seed, start=start)
        before = ~np.isin(held, first)
        kinds = {
            "all validation faces": np.ones(len(held), bool),
            "trained on before": before,
            "never trained on": ~before,
        }
        rows += _rows("redrawn", arm, seed, correct, kinds)
        every = {"PublicTest, never seen": np.ones(len(unseen), bool)}
        rows += _rows("redrawn", arm, seed, right(path, unseen, plan), every)
        start = str(path) if start == "none" else start
    return rows


def summarize(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracy over all seeds with its 95% Wilson interval, for each arm and kind.

    Seeds draw from the same faces, so that the interval is of these faces, not of all repetitions.
    """
    key = ["experiment", "arm", "faces"]
    found = runs.groupby(key, sort=False)[["n", "right"]].sum().reset_index()
    found["accuracy"] = found["right"] / found["n"]
    found[["low", "high"]] = [*map(wilson, found["right"], found["n"])]
    return found


def _held_out(faces: Faces, seed: int) -> np.ndarray:
    rows = np.arange(len(faces))
    held = train_test_split(rows, test_size=_HELD, stratify=faces.labels, random_state=seed)[1]
    return np.sort(held)


def _held_groups(faces: Faces, groups: np.ndarray, seed: int) -> np.ndarray:
    folds = StratifiedGroupKFold(round(1 / _HELD), shuffle=True, random_state=seed)
    held: np.ndarray = next(folds.split(faces.images, faces.labels, groups))[1]
    return held


def _rows(
    experiment: str, arm: str, seed: int, correct: np.ndarray, kinds: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    return [
        {
            "experiment": experiment,
            "arm": arm,
            "seed": seed,
            "faces": kind,
            "n": int(which.sum()),
            "right": int(correct[which].sum()),
            "accuracy": float(correct[which].mean()),
        }
        for kind, which in kinds.items()
        if which.any()
    ]
