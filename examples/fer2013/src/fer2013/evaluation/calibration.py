"""Whether a network's probabilities mean what they say."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot
from torchmetrics.functional.classification import multiclass_calibration_error

#: Bins of equal width between the confidences 0 and 1.
BINS = 15


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How far probabilities are from what happens.

    Attributes:
        error: expected calibration error, the mean over all faces of a bin's |accuracy -
            confidence|; Guo et al. 2017, equation 3.
        log_loss: mean of -log of the true class's probability, in nats.
        brier: mean over the faces of the squared distance between probabilities and truth, the sum
            over the classes, in [0, 2].
        bins: a row for each bin: low, high, faces, confidence and accuracy (means over its
            faces; NaN where it has none).
    """

    error: float
    log_loss: float
    brier: float
    bins: pd.DataFrame

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON types; the bins without faces are left out."""
        bins = self.bins[self.bins["faces"] > 0].to_dict("records")
        return {
            "expected calibration error": self.error,
            "log loss": self.log_loss,
            "brier": self.brier,
            "bins": bins,
        }


def calibration(logits: Tensor, labels: Tensor) -> Calibration:
    """Compare a network's confidence with its accuracy.

    Args:
        logits: (N, classes); their softmax is judged.
        labels: (N,) int64.
    """
    logits = logits.double()
    probabilities = logits.softmax(dim=1)
    classes = logits.shape[1]
    confidence, predicted = probabilities.max(dim=1)
    error = multiclass_calibration_error(probabilities, labels, classes, n_bins=BINS, norm="l1")
    distance = (probabilities - one_hot(labels, classes)).square().sum(dim=1)
    return Calibration(
        error=error.item(),
        log_loss=cross_entropy(logits, labels).item(),
        brier=distance.mean().item(),
        bins=reliability(confidence.numpy(), (predicted == labels).numpy()),
    )


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """Return the mean confidence and accuracy of the faces of similar confidence.

    Args:
        confidence: (N,) in [0, 1].
        correct: (N,) bool.
        bins: of equal width; a face on a border belongs to the upper one.

    Returns:
        A row for each bin; the columns are those of :attr:`Calibration.bins`.
    """
    edges = np.linspace(0, 1, bins + 1)
    which = np.digitize(confidence, edges[1:-1])
    faces = np.bincount(which, minlength=bins)
    # 0 / 0 is NaN: an empty bin has no accuracy.
    with np.errstate(invalid="ignore"):
        means = [np.bincount(which, x, minlength=bins) / faces for x in (confidence, correct)]
    return pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "faces": faces,
            "confidence": means[0],
            "accuracy": means[1],
        }
    )
