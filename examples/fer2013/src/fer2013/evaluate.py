"""How good a network is: accuracy and the report for each emotion, by scikit-learn."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from sklearn.metrics import classification_report
from torch import Tensor, nn

from .averaging import averaged_logits
from .data import CLASSES, Faces, to_batch

_BATCH = 256


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


def predict(
    model: nn.Module,
    faces: Faces,
    *,
    averaging: str = "mirror",
    crop: int | None = None,
    device: str = "cpu",
) -> Tensor:
    """Return (N, 7) logits of faces in main memory; the options are those of :func:`evaluate`."""
    model = model.to(device).to(memory_format=torch.channels_last).eval()
    images = to_batch(faces.images)
    with torch.inference_mode():
        parts = [
            averaged_logits(model, part.to(device), averaging, crop=crop).cpu()
            for part in images.split(_BATCH)
        ]
    return torch.cat(parts)


def evaluate(
    model: nn.Module,
    faces: Faces,
    *,
    averaging: str = "mirror",
    crop: int | None = None,
    device: str = "cpu",
) -> Evaluation:
    """Measure a network on labelled faces.

    Args:
        model: (N, 1, 48, 48) in [0, 1] -> (N, 7) logits.
        faces: one split; see :meth:`fer2013.data.Faces.split`.
        averaging: over which views of a face; see :data:`fer2013.averaging.MEANINGS`.
        crop: side of the ten crops in pixels.
        device: where to run.
    """
    logits = predict(model, faces, averaging=averaging, crop=crop, device=device)
    predicted = logits.argmax(dim=1).numpy()
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
