"""How good a network is: accuracy with its interval, the report by emotion, calibration."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest
from sklearn.metrics import classification_report, confusion_matrix
from torch import Tensor, nn

from ..data.faces import CLASSES, Faces
from .calibration import Calibration, calibration
from .predictions import predict


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A network on some faces.

    Attributes:
        count: how many faces.
        correct: how many of them it is right about.
        report: scikit-learn's classification report: by class name and for the averages,
            precision, recall, f1-score and support.
        confusion: (7, 7) counts, a row for each true class and a column for each predicted one.
        calibration: of its probabilities.
    """

    count: int
    correct: int
    report: dict[str, Any]
    confusion: np.ndarray
    calibration: Calibration

    @property
    def accuracy(self) -> float:
        """Return the fraction of right predictions, in [0, 1]."""
        return self.correct / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Return the accuracy's 95% Wilson interval."""
        return wilson(self.correct, self.count)


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


def evaluate(
    model: nn.Module,
    faces: Faces,
    *,
    averaging: str = "mirror",
    crop: int | None = None,
    device: str = "cpu",
    precision: str = "float32",
) -> Evaluation:
    """Measure a network on labelled faces.

    Args:
        model: (N, 1, 48, 48) in [0, 1] -> (N, 7) logits.
        faces: one split; see :meth:`fer2013.data.faces.Faces.split`.
        averaging: over which views of a face; see :data:`fer2013.evaluation.predictions.MEANINGS`.
        crop: side of the ten crops in pixels.
        device: where to run.
        precision: one of :data:`fer2013.evaluation.predictions.PRECISIONS`.

    Raises:
        ValueError: there are no faces, an option is unknown, or logits are not finite.
    """
    logits = predict(
        model, faces, averaging=averaging, crop=crop, device=device, precision=precision
    )
    return measure(logits, faces.labels)


def measure(logits: Tensor, labels: np.ndarray) -> Evaluation:
    """Measure what a network said of labelled faces.

    Args:
        logits: (N, 7).
        labels: (N,) class indices.

    Raises:
        ValueError: there are no faces, or logits are not finite.
    """
    if not len(labels):
        raise ValueError("expected at least one face to evaluate on, got none")
    if bad := int((~logits.isfinite()).any(dim=1).sum()):
        raise ValueError(
            f"expected finite logits, got NaN or infinite ones for {bad} of {len(labels)} faces: "
            "the weights are damaged, or the training diverged"
        )
    predicted = logits.argmax(dim=1).numpy()
    indices = list(range(len(CLASSES)))
    report = classification_report(
        labels,
        predicted,
        labels=indices,
        target_names=list(CLASSES),
        zero_division=0.0,
        output_dict=True,
    )
    return Evaluation(
        count=len(labels),
        correct=int((predicted == labels).sum()),
        report=report,
        confusion=confusion_matrix(labels, predicted, labels=indices),
        calibration=calibration(logits, torch.from_numpy(labels)),
    )
