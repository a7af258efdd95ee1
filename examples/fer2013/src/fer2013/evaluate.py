"""How good a network is: accuracy and the report for each emotion, by scikit-learn."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from sklearn.metrics import classification_report
from torch import Tensor, nn

from .data import CLASSES, Faces, to_batch

#: How every accuracy of this project is measured.
AVERAGING = "mean of the logits over the picture and its mirror image"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A network on one split.

    Attributes:
        accuracy: fraction of right predictions, in [0, 1].
        report: scikit-learn's classification report: by class name and for the averages,
            precision, recall, f1-score and support.
        text: the same as a table to print.
    """

    accuracy: float
    report: dict[str, Any]
    text: str


def mirrored_logits(model: nn.Module, images: Tensor) -> Tensor:
    """Return (N, 7) logits averaged over each picture and its mirror image.

    Args:
        model: (N, 1, 48, 48) -> (N, 7) logits.
        images: (N, 1, 48, 48).
    """
    both: Tensor = (model(images) + model(images.flip(-1))) / 2
    return both


def predict(model: nn.Module, faces: Faces, *, device: str = "cpu", batch: int = 512) -> Tensor:
    """Return (N, 7) logits of faces, averaged as :data:`AVERAGING` says, in main memory."""
    model = model.to(device).eval()
    images = to_batch(faces.images)
    with torch.inference_mode():
        parts = [mirrored_logits(model, part.to(device)).cpu() for part in images.split(batch)]
    return torch.cat(parts)


def evaluate(model: nn.Module, faces: Faces, *, device: str = "cpu") -> Evaluation:
    """Measure a network on labelled faces.

    Args:
        model: (N, 1, 48, 48) in [0, 1] -> (N, 7) logits.
        faces: one split; see :meth:`fer2013.data.Faces.split`.
        device: where to run.
    """
    predicted = predict(model, faces, device=device).argmax(dim=1).numpy()
    options: dict[str, Any] = {
        "labels": list(range(len(CLASSES))),
        "target_names": list(CLASSES),
        "zero_division": 0.0,
    }
    return Evaluation(
        accuracy=float((predicted == faces.labels).mean()),
        report=classification_report(faces.labels, predicted, output_dict=True, **options),
        text=classification_report(faces.labels, predicted, digits=3, **options),
    )
