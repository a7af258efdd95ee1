"""Faces judged by networks that did not train on them: test faces, and Training by folds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from ..configurations.config import Config
from ..configurations.recipes import CONFIGS
from ..data.duplicates import Duplicates, blanks, twins
from ..data.faces import CLASSES, USAGES, Faces
from ..evaluation.predictions import predict
from ..networks import weights
from ..training.train import Machine, train
from .label_issues import LabelIssues, find_issues

_ON_CPU = Machine(device="cpu")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What an audit does beyond looking for twins and blanks.

    Attributes:
        weights: the network that judges the test faces' labels.
        folds: how many networks judge Training's labels, each trained without its fold; 0 none.
        config: how those are trained.
        drop: what the index leaves out, out of :data:`fer2013.audit.audit.DROPS`; empty writes no
            index.
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
class Judged:
    """What networks that did not train on M faces say of their labels.

    Attributes:
        source: "test" for PublicTest and PrivateTest, or "Training".
        how: by which networks, in words.
        where: (M,) the faces' indices in the data.
        issues: of these faces.
        networks: of each face, the weights of the one that judged it.
        left_out: how many faces of the source nobody could judge fairly, by reason.
    """

    source: str
    how: str
    where: np.ndarray
    issues: LabelIssues
    networks: list[Path]
    left_out: dict[str, int]


def judge_tests(faces: Faces, duplicates: Duplicates, plan: Plan) -> Judged | None:
    """Let a trained network judge PublicTest and PrivateTest.

    Faces with a twin in Training are left out, since the network may have learnt the twin's label
    by heart, and so are blanks, which have no true label.

    Returns:
        None where the data holds no test faces that can be judged.
    """
    test = faces.usages != USAGES.index("Training")
    blank = test & blanks(faces)
    leaked = test & ~blank & twins(faces, duplicates)
    where = np.flatnonzero(test & ~blank & ~leaked)
    if not len(where):
        return None
    facts = weights.read_facts(plan.weights)
    probabilities = probabilities_of(plan.weights, faces.take(where), plan.machine.device)
    return Judged(
        "test",
        f"{plan.weights.name}, trained on {facts.get('trained_on', 'unknown faces')}; its epoch "
        f"was selected on {facts.get('selected_on', 'unknown faces')}",
        where,
        find_issues(faces.labels[where], probabilities),
        [plan.weights] * len(where),
        {"blank": int(blank.sum()), "twin in Training": int(leaked.sum())},
    )


def judge_training(faces: Faces, duplicates: Duplicates, out: Path, plan: Plan) -> Judged:
    """Let networks judge the Training faces on which they did not train; see :func:`held_out`."""
    dealt = folds_of(faces, duplicates.group_of(len(faces)), plan.folds, seed=plan.seed)
    probabilities, paths = held_out(faces, dealt, out, plan)
    blank = (dealt >= 0) & blanks(faces)
    where = np.flatnonzero((dealt >= 0) & ~blank)
    return Judged(
        "Training",
        f"{plan.folds} networks {plan.config.name!r} of {plan.config.epochs} epochs at most, each "
        "trained without the fold that it judges; twins are in the same fold",
        where,
        find_issues(faces.labels[where], probabilities[where]),
        [paths[fold] for fold in dealt[where]],
        {"blank": int(blank.sum())},
    )


def folds_of(faces: Faces, groups: np.ndarray, count: int, *, seed: int = 0) -> np.ndarray:
    """Deal the Training faces out to folds, by class, all copies of a photograph to the same one.

    Args:
        faces: FER2013.
        groups: (N,) int64; see :meth:`fer2013.data.duplicates.Duplicates.group_of`.
        count: how many folds, at least 2.
        seed: of the deal.

    Returns:
        (N,) int64, the fold from 0, and -1 for other faces than Training's.

    Raises:
        ValueError: a class has fewer Training faces than there are folds.
    """
    training = np.flatnonzero(faces.usages == USAGES.index("Training"))
    labels = faces.labels[training]
    rarest = np.unique(labels, return_counts=True)[1].min(initial=len(labels))
    if rarest < count:
        raise ValueError(
            f"expected at least as many Training faces of each class as folds, got {rarest} faces "
            f"for {count} folds"
        )
    dealt = np.full(len(faces), -1)
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    for fold, (_, held) in enumerate(splitter.split(labels, labels, groups[training])):
        dealt[training[held]] = fold
    return dealt


def held_out(
    faces: Faces, folds: np.ndarray, out: Path, plan: Plan
) -> tuple[np.ndarray, list[Path]]:
    """Train a network without each fold, and let it judge the fold.

    A fold takes PrivateTest's place, so it neither trains nor selects; but PublicTest selects, and
    some of its faces have a twin in the fold. Folds that are finished are
    not trained again, and one that was stopped goes on.

    Args:
        faces: FER2013.
        folds: as :func:`folds_of` returns them.
        out: a folder for the folds' runs, ``fold1`` and so on.
        plan: how and where to train.

    Returns:
        (N, 7) float64 probabilities, NaN for faces without a fold, and the weights of each fold.

    Raises:
        ValueError: the configuration starts from a network that has seen the faces, or what
            :func:`fer2013.training.train.train` raises.
    """
    config = plan.config
    if config.weights not in {"none", "imagenet"}:
        raise ValueError(
            f"{config.name!r} starts from {config.weights!r}, which was trained on the faces that "
            "are to be judged: take a configuration that starts from none or imagenet"
        )
    probabilities, paths = np.full((len(faces), len(CLASSES)), np.nan), []
    private = USAGES.index("PrivateTest")
    for fold in range(folds.max() + 1):
        held = folds == fold
        shown = dataclasses.replace(faces, usages=np.where(held, private, faces.usages))
        part = shown.take(held | (faces.usages != private))
        folder = out / f"fold{fold + 1}"
        train(config, part, out=folder, seed=plan.seed, machine=plan.machine)
        paths.append(folder / f"{config.name}.safetensors")
        probabilities[held] = probabilities_of(paths[-1], faces.take(held), plan.machine.device)
    return probabilities, paths


def probabilities_of(path: Path, faces: Faces, device: str = "cpu") -> np.ndarray:
    """Return (N, 7) float64 probabilities, over the views of the network's configuration."""
    config = weights.config_of(weights.read_facts(path))
    logits = predict(
        weights.load(path),
        faces,
        averaging=config.averaging,
        crop=config.augmentation.crop,
        device=device,
    )
    found: np.ndarray = logits.double().softmax(dim=1).numpy()
    return found
