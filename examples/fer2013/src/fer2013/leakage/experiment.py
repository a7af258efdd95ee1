"""Two experiments on leaking splits, each with a control that differs only in the split.

Copies: FER2013 contains many images more than once. A random split trains on one copy and validates
on another; the control keeps all copies on one side.

Redrawn split: a network continues training with a new draw of the split, so that most of its
validation images were trained on before; the control continues with the same split.

The network is BaseCNN on images of 24x24 pixels, which costs a quarter and memorises as well; its
accuracies are not results on FER2013.
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
# The redrawn split uses this fraction of the images, as it trains three times per seed.
_FEWER = 0.6


def experiment(faces: Faces, out: Path, plan: Plan) -> Iterator[str]:
    """Run both experiments, or resume them, and yield the results as lines of text.

    Args:
        faces: FER2013 with Training and PublicTest; PrivateTest is not used.
        out: the folder of the runs, ``leakage.csv`` (each run), ``summary.csv`` and
            ``leakage.png``.
        plan: the size of the experiments.

    Raises:
        ValueError: no image has a copy, a split is missing, or ``out`` has runs of another plan.
    """
    training = faces.split("Training")
    used = faces.take(faces.usages != USAGES.index("PrivateTest"))
    groups = find(used).group_of(len(used))
    own = groups[used.usages == USAGES.index("Training")]
    # The second experiment uses images without copies, so that nothing else leaks.
    single = used.take(np.bincount(groups)[groups] == 1)
    rows = []
    for seed in range(plan.seeds):
        rows += copies_across(training, own, out / f"copies_{seed}", plan, seed=seed)
        rows += redrawn_split(single, out / f"redrawn_{seed}", plan, seed=seed)
    runs = pd.DataFrame(rows)
    write_csv(runs, out / "leakage.csv")
    summary = summarize(runs)
    write_csv(summary, out / "summary.csv")
    write_figure(draw(runs, summary), out / "leakage.png", dpi=120)
    yield from sentences(runs, summary, copied_share(own))
    yield f"wrote {out}"


def copied_share(groups: np.ndarray) -> float:
    """Return the expected fraction of a random fifth with a copy in the rest.

    Each of an image's g - 1 copies is in the same fifth with probability 1/5.
    """
    sizes = np.bincount(groups)[groups]
    return float((1 - _HELD ** (sizes - 1.0)).mean())


def copies_across(
    faces: Faces, groups: np.ndarray, out: Path, plan: Plan, *, seed: int
) -> list[dict[str, Any]]:
    """Validate with copies on both sides of the split, and with copies kept together.

    Args:
        faces: Training.
        groups: (N,) group numbers; copies have the same one.
        out: the folder of the two runs.
        plan: the size of the experiments.
        seed: seed of images, splits and training.

    Returns:
        A row for each split and kind of validation image.
    """
    copied = np.bincount(groups)[groups] > 1
    chosen = _enriched(groups, plan.faces, np.random.default_rng((seed, 1)))
    part, own, copied = faces.take(chosen), groups[chosen], copied[chosen]
    folds = StratifiedGroupKFold(round(1 / _HELD), shuffle=True, random_state=seed)
    rows = []
    for arm, held in (
        ("copies on both sides", _held_out(part, seed)),
        ("copies kept together", next(folds.split(part.images, part.labels, own))[1]),
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
    """Return the indices of random images, up to half of them with copies, in whole groups."""
    sizes = np.bincount(groups)[groups]
    twins, single = np.flatnonzero(sizes > 1), np.flatnonzero(sizes == 1)
    if not len(twins):
        raise ValueError("no Training image has a copy that could leak: is this all of FER2013?")
    place = random.permutation(groups.max() + 1)[groups[twins]]
    twins = twins[np.argsort(place, kind="stable")][: count // 2]
    others = random.permutation(single)[: count - len(twins)]
    return np.sort(np.concatenate([twins, others]))


def redrawn_split(faces: Faces, out: Path, plan: Plan, *, seed: int) -> list[dict[str, Any]]:
    """Continue training with a new draw of the split, and with the same split.

    Args:
        faces: Training and PublicTest without copies; PublicTest is only used to test.
        out: the folder of the three runs.
        plan: the size of the experiments.
        seed: seed of images, splits and training.

    Returns:
        A row for each run and kind of image.
    """
    unseen, training = faces.split("PublicTest"), faces.split("Training")
    chosen = np.random.default_rng((seed, 2)).permutation(len(training))
    part = training.take(np.sort(chosen[: int(_FEWER * plan.faces)]))
    first = _held_out(part, seed)
    start = "none"
    rows = []
    for arm, held in (
        ("one training", first),
        ("continued, same split", first),
        ("continued, redrawn split", _held_out(part, seed + 1000)),
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
    """Return the accuracy over all seeds with its 95% Wilson interval, by arm and kind of image.

    Seeds draw from the same images, so the interval does not cover the sampling of images.
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
