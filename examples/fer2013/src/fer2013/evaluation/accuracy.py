"""How good a network is: accuracy with its interval, the report by emotion, calibration."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest
from sklearn.metrics import classification_report, confusion_matrix
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from ..data.faces import CLASSES, Faces
from .predictions import predict

#: Bins of equal width between the confidences 0 and 1.
BINS = 15


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A network on some faces.

    Attributes:
        count: how many faces.
        correct: how many of them it is right about.
        report: scikit-learn's classification report: by class name and for the averages,
            precision, recall, f1-score and support.
        confusion: (7, 7) counts, a row for each true class and a column for each predicted one.
        calibration: see :func:`calibration`.
    """

    count: int
    correct: int
    report: dict[str, Any]
    confusion: np.ndarray
    calibration: dict[str, Any]

    @property
    def accuracy(self) -> float:
        """Return the fraction of right predictions, in [0, 1]."""
        return self.correct / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Return the accuracy's 95% Wilson interval."""
        return wilson(self.correct, self.count)

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON types; the calibration's bins without faces are left out."""
        bins = self.calibration["bins"]
        return {
            "n": self.count,
            "correct": self.correct,
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "report": self.report,
            "confusion": {"classes": list(CLASSES), "counts": self.confusion.tolist()},
            "calibration": {**self.calibration, "bins": bins.dropna().to_dict("records")},
        }

    def __str__(self) -> str:
        """Return the accuracy in words."""
        low, high = self.interval
        return (
            f"{self.accuracy:.2%} [{low:.2%}, {high:.2%}] (95%, Wilson), "
            f"{self.correct:,} of {self.count:,}"
        )


def wilson(correct: int, count: int) -> tuple[float, float]:
    """Return the 95% Wilson score interval of a proportion, by scipy.

    It says how far chance alone moves the accuracy when other faces are drawn, and nothing of
    other training runs.

    >>> low, high = wilson(81, 263)  # Newcombe 1998, table I: .2553 to .3662
    >>> round(low, 4), round(high, 4)
    (0.2553, 0.3662)
    """
    interval = binomtest(correct, count).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def evaluate(model: nn.Module, faces: Faces, **options: Any) -> Evaluation:
    """Measure a network on labelled faces.

    Args:
        model: (N, 1, 48, 48) in [0, 1] -> (N, 7) logits.
        faces: one split; see :meth:`fer2013.data.faces.Faces.split`.
        options: of :func:`fer2013.evaluation.predictions.predict`.

    Raises:
        ValueError: there are no faces, an option is unknown, or logits are not finite.
    """
    return measure(predict(model, faces, **options), faces.labels)


def measure(logits: Tensor, labels: np.ndarray) -> Evaluation:
    """Measure what a network said of labelled faces, at least one.

    Args:
        logits: (N, 7).
        labels: (N,) class indices.

    Raises:
        ValueError: logits are not finite.
    """
    if bad := int((~logits.isfinite()).any(dim=1).sum()):
        raise ValueError(
            f"expected finite logits, got NaN or infinite ones for {bad} of {len(labels)} faces: "
            "the weights are damaged, or the training diverged"
        )
    predicted = logits.argmax(dim=1).numpy()
    indices = list(range(len(CLASSES)))
    return Evaluation(
        count=len(labels),
        correct=int((predicted == labels).sum()),
        report=classification_report(
            labels,
            predicted,
            labels=indices,
            target_names=list(CLASSES),
            zero_division=0.0,
            output_dict=True,
        ),
        confusion=confusion_matrix(labels, predicted, labels=indices),
        calibration=calibration(logits, torch.from_numpy(labels)),
    )


def calibration(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """Compare a network's confidence with its accuracy.

    Args:
        logits: (N, classes); their softmax is judged.
        labels: (N,) int64.

    Returns:
        "expected calibration error", the mean over all faces of a bin's |accuracy - confidence|
        (Guo et al. 2017, equation 3); "log loss", the mean of -log of the true class's probability,
        in nats; "brier", the mean over the faces of the squared distance between probabilities and
        truth, the sum over the classes, in [0, 2]; "bins", see :func:`reliability`.
    """
    logits = logits.double()
    probabilities = logits.softmax(dim=1)
    confidence, predicted = probabilities.max(dim=1)
    bins = reliability(confidence.numpy(), (predicted == labels).numpy())
    gaps = bins["faces"] * (bins["accuracy"] - bins["confidence"]).abs()
    distances = (probabilities - one_hot(labels, logits.shape[1])).square().sum(dim=1)
    return {
        "expected calibration error": float(gaps.sum() / len(labels)),
        "log loss": cross_entropy(logits, labels).item(),
        "brier": distances.mean().item(),
        "bins": bins,
    }


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """Return the mean confidence and accuracy of the faces of similar confidence.

    Args:
        confidence: (N,) in [0, 1].
        correct: (N,) bool.
        bins: of equal width; a face on a border belongs to the upper one.

    Returns:
        A row for each bin: low, high, faces, confidence and accuracy (means over its faces; NaN
        where it has none).
    """
    edges = np.linspace(0, 1, bins + 1)
    faces = pd.DataFrame({"confidence": confidence, "accuracy": correct})
    by_bin = faces.groupby(np.digitize(confidence, edges[1:-1]))
    found = by_bin.mean().reindex(range(bins))
    found.insert(0, "faces", by_bin.size().reindex(range(bins), fill_value=0))
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:]}).join(found)
