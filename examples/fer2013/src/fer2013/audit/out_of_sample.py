"""Judge labels by networks that were not trained on the images: test images, and folds."""

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
    """The options of an audit.

    Attributes:
        weights: the network that judges the labels of test images.
        folds: number of networks that judge Training's labels by cross-validation; 0 for none.
        config: the folds' training configuration.
        drop: what the index drops, out of :data:`fer2013.audit.audit.DROPS`; empty for no index.
        ferplus: FER+'s ``fer2013new.csv``.
        shown: maximum number of images or groups per sheet.
        seed: seed of the folds and their training.
        machine: the hardware.
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
    """The assessment of the labels of M images.

    Attributes:
        source: "test" for PublicTest and PrivateTest, or "Training".
        how: description of the networks.
        where: (M,) indices of the images.
        issues: the assessment.
        networks: weights file of the network that judged each image.
        left_out: number of images that were excluded, by reason.
    """

    source: str
    how: str
    where: np.ndarray
    issues: LabelIssues
    networks: list[Path]
    left_out: dict[str, int]


def judge_tests(faces: Faces, duplicates: Duplicates, plan: Plan) -> Judged | None:
    """Judge the labels of PublicTest and PrivateTest by a trained network.

    Duplicates of Training images are excluded, as the network may have memorised their labels, and
    so are blank images.

    Returns:
        None if no images remain.
    """
    test = faces.usages != USAGES.index("Training")
    blank = test & blanks(faces)
    leaked = test & ~blank & twins(faces, duplicates)
    where = np.flatnonzero(test & ~blank & ~leaked)
    if not len(where):
        return None
    facts = weights.read_facts(plan.weights)
    probabilities = _probabilities(plan.weights, faces.take(where), plan.machine.device)
    return Judged(
        "test",
        f"{plan.weights.name}, trained on {facts.get('trained_on', 'unknown images')}; its epoch "
        f"was selected on {facts.get('selected_on', 'unknown images')}",
        where,
        find_issues(faces.labels[where], probabilities),
        [plan.weights] * len(where),
        {"blank": int(blank.sum()), "twin in Training": int(leaked.sum())},
    )


def judge_training(faces: Faces, duplicates: Duplicates, out: Path, plan: Plan) -> Judged:
    """Judge the labels of Training by cross-validation; see :func:`held_out`."""
    dealt = folds_of(faces, duplicates.group_of(len(faces)), plan.folds, seed=plan.seed)
    probabilities, paths = held_out(faces, dealt, out, plan)
    blank = (dealt >= 0) & blanks(faces)
    where = np.flatnonzero((dealt >= 0) & ~blank)
    return Judged(
        "Training",
        f"{plan.folds} networks {plan.config.name!r} of at most {plan.config.epochs} epochs, each "
        "trained without the fold that it judges; duplicates are in the same fold",
        where,
        find_issues(faces.labels[where], probabilities[where]),
        [paths[fold] for fold in dealt[where]],
        {"blank": int(blank.sum())},
    )


def folds_of(faces: Faces, groups: np.ndarray, count: int, *, seed: int = 0) -> np.ndarray:
    """Assign Training images to folds, stratified by class and with duplicates together.

    Args:
        faces: FER2013.
        groups: (N,) int64; see :meth:`fer2013.data.duplicates.Duplicates.group_of`.
        count: number of folds, at least 2.
        seed: seed of the folds.

    Returns:
        (N,) int64 folds from 0; -1 for other splits.

    Raises:
        ValueError: a class has fewer Training images than there are folds.
    """
    training = np.flatnonzero(faces.usages == USAGES.index("Training"))
    labels = faces.labels[training]
    rarest = np.unique(labels, return_counts=True)[1].min(initial=len(labels))
    if rarest < count:
        raise ValueError(
            f"expected at least as many Training images of each class as folds, got {rarest} "
            f"images for {count} folds"
        )
    dealt = np.full(len(faces), -1)
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    for fold, (_, held) in enumerate(splitter.split(labels, labels, groups[training])):
        dealt[training[held]] = fold
    return dealt


def held_out(
    faces: Faces, folds: np.ndarray, out: Path, plan: Plan
) -> tuple[np.ndarray, list[Path]]:
    """Train a network without each fold, and predict that fold.

    The fold replaces PrivateTest, so it is used neither for training nor for selection. PublicTest,
    which is used for selection, may contain duplicates of the fold. Finished folds are not trained
    again, and a stopped one resumes.

    Args:
        faces: FER2013.
        folds: see :func:`folds_of`.
        out: the folder of the runs ``fold1`` and so on.
        plan: the options.

    Returns:
        (N, 7) float64 probabilities, NaN without a fold; and the weights file of each fold.

    Raises:
        ValueError: the configuration starts from a network that was trained on the images.
    """
    config = plan.config
    if config.weights not in {"none", "imagenet"}:
        raise ValueError(
            f"{config.name!r} starts from {config.weights!r}, which was trained on the images to "
            "judge: use a configuration that starts from none or imagenet"
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
        probabilities[held] = _probabilities(paths[-1], faces.take(held), plan.machine.device)
    return probabilities, paths


def _probabilities(path: Path, faces: Faces, device: str) -> np.ndarray:
    """Return (N, 7) float64 probabilities, averaged over the configuration's views."""
    config = weights.config_of(weights.read_facts(path))
    crop = config.augmentation.crop
    logits = predict(
        weights.load(path), faces, averaging=config.averaging, crop=crop, device=device
    )
    found: np.ndarray = logits.double().softmax(dim=1).numpy()
    return found
