"""Find likely label errors by confident learning, and rank the emotions that labels confuse.

Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70
(2021), as implemented by cleanlab. An image confidently belongs to class j if its probability of j
is at least the mean probability of j over the images with label j; the confident joint counts
images by label and this class. The probabilities come from networks that were not trained on the
images.
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
    """The assessment of N labels.

    Attributes:
        flagged: (N,) bool, whether the label is likely wrong.
        suggested: (N,) int64, the most probable class.
        quality: (N,) in [0, 1], the probability of the label.
        joint: (7, 7) int64 counts by label and confident class, calibrated so that each row sums to
            the number of images with that label.
        confusion: (7, 7) int64 counts by label and most probable class.
    """

    flagged: np.ndarray
    suggested: np.ndarray
    quality: np.ndarray
    joint: np.ndarray
    confusion: np.ndarray

    @property
    def doubtful(self) -> np.ndarray:
        """The indices of the flagged labels, lowest quality first."""
        flagged = np.flatnonzero(self.flagged)
        return flagged[np.argsort(self.quality[flagged], kind="stable")]


def find_issues(labels: np.ndarray, probabilities: np.ndarray) -> LabelIssues:
    """Find likely label errors.

    For each label i and other class j, as many images are flagged as the confident joint estimates,
    those with the largest margin of j's probability over i's (cleanlab's "prune by noise rate"). A
    class with one image has none flagged.

    Args:
        labels: (N,) int64, N at least 1.
        probabilities: (N, 7) out-of-sample probabilities.

    Raises:
        ValueError: probabilities are not finite.
    """
    if not np.isfinite(probabilities).all():
        raise ValueError("expected finite probabilities, got NaN: the weights are damaged")
    joint = compute_confident_joint(labels, probabilities)
    suggested = probabilities.argmax(axis=1)
    with warnings.catch_warnings():
        # Classes of at most one image have none flagged, as documented.
        warnings.filterwarnings("ignore", "May not flag all label issues", UserWarning)
        # Starting a second process costs more than it saves.
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
        A row for each of the 21 pairs, by decreasing ``joint``: ``rank``, ``a``, ``b``; ``joint``,
        the images labelled a and confidently b or vice versa, and their ``share`` of the sum over
        all pairs; ``confused``, the images predicted as the other class; ``rank by confused``.
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


def verdict(ranked: pd.DataFrame) -> str:
    """Say whether surprise and neutral are the pair that labels confuse most."""
    pair = ranked[(ranked["a"] == "surprise") & (ranked["b"] == "neutral")].iloc[0]
    first = ranked.iloc[0]
    leads = "is" if pair["rank"] == 1 else "is not"
    return (
        f"surprise/neutral {leads} the leading confusion: rank {pair['rank']} of {len(ranked)} in "
        f"the confident joint ({pair['joint']} images, {pair['share']:.1%} of all confident "
        f"disagreements), rank {pair['rank by confused']} by predictions ({pair['confused']} "
        f"images); first is {first['a']}/{first['b']} ({first['joint']} images, "
        f"{first['share']:.1%})"
    )
