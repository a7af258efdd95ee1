"""Doubtful labels by confident learning, and which emotions the labels confuse.

Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70
(2021), as cleanlab has it. A face counts as confidently of class j if its probability of j is at
least the mean probability of j over the faces labelled j; the confident joint counts the faces by
given label and by that class. All rests on probabilities of a network that did not train on the
faces.
"""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pandas as pd
from cleanlab.count import compute_confident_joint
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from sklearn.metrics import confusion_matrix

from ..data.faces import CLASSES


@dataclasses.dataclass(frozen=True)
class LabelIssues:
    """What is doubtful about the labels of N faces.

    Attributes:
        flagged: (N,) bool.
        suggested: (N,) int64, the most probable class.
        quality: (N,) in [0, 1], the probability of the given label; the lower, the more doubtful.
        joint: (7, 7) int64 counts by given label and confident class, calibrated so that a row sums
            up to the faces of that label.
        confusion: (7, 7) int64 counts by given label and most probable class.
    """

    flagged: np.ndarray
    suggested: np.ndarray
    quality: np.ndarray
    joint: np.ndarray
    confusion: np.ndarray

    @property
    def doubtful(self) -> np.ndarray:
        """Return the indices of the flagged labels, the most doubtful first."""
        flagged = np.flatnonzero(self.flagged)
        return flagged[np.argsort(self.quality[flagged], kind="stable")]


def find_issues(labels: np.ndarray, probabilities: np.ndarray) -> LabelIssues:
    """Find doubtful labels.

    Flagged are, for each given label i and other class j, as many faces as the confident joint
    estimates, those with the largest margin of j's probability over i's (cleanlab's "prune by noise
    rate"). Of a class with a single face none is flagged.

    Args:
        labels: (N,) int64 given classes.
        probabilities: (N, 7) out-of-sample probabilities.

    Raises:
        ValueError: these are no probabilities of these faces, or there is no face.
    """
    if probabilities.shape != (len(labels), len(CLASSES)) or not len(labels):
        raise ValueError(
            f"expected (N, {len(CLASSES)}) probabilities of {len(labels)} labelled faces and at "
            f"least one face, got {probabilities.shape}"
        )
    sums = probabilities.sum(axis=1)
    if not (
        np.isfinite(sums).all() and (probabilities >= 0).all() and np.allclose(sums, 1, atol=1e-3)
    ):
        raise ValueError(
            "expected finite probabilities that sum up to 1 for each face: are these logits, or "
            "are the weights damaged?"
        )
    joint = compute_confident_joint(labels, probabilities)
    suggested = probabilities.argmax(axis=1)
    with warnings.catch_warnings():
        # A class of one face or none: nothing of it is flagged, as the docstring says.
        warnings.filterwarnings("ignore", "May not flag all label issues", UserWarning)
        # One process: a second one costs more to start than it saves.
        flagged = find_label_issues(labels, probabilities, confident_joint=joint, n_jobs=1)
    return LabelIssues(
        flagged=flagged,
        suggested=suggested,
        quality=get_label_quality_scores(labels, probabilities, method="self_confidence"),
        joint=joint,
        confusion=confusion_matrix(labels, suggested, labels=list(range(len(CLASSES)))),
    )


def rank_confusions(issues: LabelIssues) -> pd.DataFrame:
    """Rank the pairs of emotions by how often one is taken for the other.

    Returns:
        A row for each of the 21 pairs, the most frequent of the confident joint first: ``rank``,
        ``a``, ``b``; ``joint`` faces labelled a and confidently b or the other way round, and their
        ``share`` of all such faces; ``confused``, the faces that the network takes for the other
        one; ``rank by confused``.
    """
    a, b = np.triu_indices(len(CLASSES), 1)
    joint, confused = ((counts + counts.T)[a, b] for counts in (issues.joint, issues.confusion))
    names = np.array(CLASSES)
    table = pd.DataFrame({"a": names[a], "b": names[b], "joint": joint})
    table["share"] = joint / max(1, joint.sum())
    table["confused"] = confused
    for place, (name, column) in ((0, ("rank", "joint")), (6, ("rank by confused", "confused"))):
        table.insert(place, name, table[column].rank(ascending=False, method="min").astype(int))
    return table.sort_values(
        ["joint", "confused"], ascending=False, kind="stable", ignore_index=True
    )


def verdict(ranked: pd.DataFrame, a: str = "surprise", b: str = "neutral") -> str:
    """Say whether a pair of emotions is the one that the labels confuse most."""
    pair, first = (
        ranked[ranked["a"].isin((a, b)) & ranked["b"].isin((a, b))].iloc[0],
        ranked.iloc[0],
    )
    leads = "is" if pair["rank"] == 1 else "is not"
    return (
        f"{a}/{b} {leads} the leading confusion: rank {pair['rank']} of {len(ranked)} in the "
        f"confident joint ({pair['joint']} faces, {pair['share']:.1%} of all confident "
        f"disagreements), rank {pair['rank by confused']} by plain predictions "
        f"({pair['confused']} faces); first is {first['a']}/{first['b']} ({first['joint']} faces, "
        f"{first['share']:.1%})"
    )
