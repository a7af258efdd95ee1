"""Accuracy with its confidence interval, per-class metrics, and calibration."""

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

#: Number of calibration bins, of equal width between 0 and 1.
BINS = 15


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A network's results on a test set.

    Attributes:
        count: number of images.
        correct: number of correct predictions.
        report: scikit-learn's classification report as a dict.
        confusion: (7, 7) counts by true class (rows) and predicted class (columns).
        calibration: see :func:`calibration`.
    """

    count: int
    correct: int
    report: dict[str, Any]
    confusion: np.ndarray
    calibration: dict[str, Any]

    @property
    def accuracy(self) -> float:
        """The accuracy in [0, 1]."""
        return self.correct / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """The accuracy's 95% Wilson interval."""
        return wilson(self.correct, self.count)

    def as_dict(self) -> dict[str, Any]:
        """Return the results as JSON types, without empty calibration bins."""
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
        """Return accuracy, interval and counts as text."""
        low, high = self.interval
        return (
            f"{self.accuracy:.2%} [{low:.2%}, {high:.2%}] (95%, Wilson), "
            f"{self.correct:,} of {self.count:,}"
        )


def wilson(correct: int, count: int) -> tuple[float, float]:
    """Return the 95% Wilson score interval of a proportion.

    It covers the sampling of the test images, not the randomness of training.

    >>> low, high = wilson(81, 263)  # Newcombe 1998, table I: .2553 to .3662
    >>> round(low, 4), round(high, 4)
    (0.2553, 0.3662)
    """
    interval = binomtest(correct, count).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def evaluate(model: nn.Module, faces: Faces, **options: Any) -> Evaluation:
    """Evaluate a network on labelled images.

    Args:
        model: (N, 1, 48, 48) in [0, 1] -> (N, 7) logits.
        faces: the test images.
        options: see :func:`fer2013.evaluation.predictions.predict`.

    Raises:
        ValueError: there are no images, or logits are not finite.
    """
    return measure(predict(model, faces, **options), faces.labels)


def measure(logits: Tensor, labels: np.ndarray) -> Evaluation:
    """Compute all metrics from logits (N, 7) and labels (N,), N at least 1.

    Raises:
        ValueError: logits are not finite.
    """
    if bad := int((~logits.isfinite()).any(dim=1).sum()):
        raise ValueError(
            f"expected finite logits, got NaN or infinity for {bad} of {len(labels)} images: "
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
    """Compute calibration metrics of the softmax of logits.

    Args:
        logits: (N, classes).
        labels: (N,) int64.

    Returns:
        "expected calibration error", the mean over the images of their bin's |accuracy -
        confidence| (Guo et al. 2017, equation 3); "log loss" in nats; "brier", the mean squared
        distance between probabilities and one-hot labels, in [0, 2]; "bins", see
        :func:`reliability`.
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
    """Bin predictions by confidence.

    Args:
        confidence: (N,) in [0, 1].
        correct: (N,) bool.
        bins: number of bins of equal width, which include their lower edges.

    Returns:
        A row per bin: low, high, faces (the count), and mean confidence and accuracy, which are NaN
        in empty bins.
    """
    edges = np.linspace(0, 1, bins + 1)
    faces = pd.DataFrame({"confidence": confidence, "accuracy": correct})
    by_bin = faces.groupby(np.digitize(confidence, edges[1:-1]))
    found = by_bin.mean().reindex(range(bins))
    found.insert(0, "faces", by_bin.size().reindex(range(bins), fill_value=0))
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:]}).join(found)
