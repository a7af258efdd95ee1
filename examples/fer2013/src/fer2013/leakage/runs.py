"""The runs of the leakage experiment: one small recipe that memorises, by the one training path."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from ..configurations.config import Augmentation, Config
from ..configurations.recipes import CONFIGS
from ..data.faces import USAGES, Faces
from ..evaluation.predictions import predict
from ..networks import weights
from ..training.train import Machine, train


@dataclasses.dataclass(frozen=True)
class Plan:
    """How large the experiment is.

    Attributes:
        faces: how many there are at most, training and validation together; as many of them have
            copies as there are, but no more than half.
        epochs: of each training.
        seeds: how often everything is repeated, with other faces, splits and weights.
        side: to what the faces are shrunk, in pixels.
        batch_size: of the training.
        device: where to run.
    """

    faces: int = 5000
    epochs: int = 16
    seeds: int = 2
    side: int = 24
    batch_size: int = 128
    device: str = "cpu"

    def config(self, start: str = "none") -> Config:
        """Return the recipe: nothing keeps the network from memorising.

        Args:
            start: the weights to start from, "none" or a file.
        """
        return dataclasses.replace(
            CONFIGS["first"],
            name="leakage",
            weights=start,
            epochs=self.epochs,
            batch_size=self.batch_size,
            # Going on at the full rate would forget what was learnt, and with it what leaked.
            rate=0.05 if start == "none" else 0.01,
            dropout=0.0,
            label_smoothing=0.0,
            augmentation=Augmentation(rotation=0.0),  # mirror images remain
            averaging="single",
            patience=self.epochs,
        )


def train_and_select(
    trained: Faces, held: Faces, out: Path, plan: Plan, seed: int, *, start: str = "none"
) -> Path:
    """Train on one part and select on the other, as if they were the official ones."""
    parts = [_shrunk(trained, "Training", plan.side), _shrunk(held, "PublicTest", plan.side)]
    images, labels, usages, names = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("images", "labels", "usages", "names")
    )
    machine = Machine(device=plan.device, precision="32-true")
    path = train(
        plan.config(start),
        Faces(images, labels, usages, names),
        out=out,
        seed=seed,
        machine=machine,
    )
    if path is None:
        raise ValueError("expected a single process, got several: run it without --devices")
    return path


def _shrunk(faces: Faces, usage: str, side: int) -> Faces:
    size = (side, side)
    images = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in faces.images]
    usages = np.full(len(faces), USAGES.index(usage))
    return Faces(np.stack(images), faces.labels, usages, faces.names)


def right(path: Path, faces: Faces, plan: Plan) -> np.ndarray:
    """Return (N,) bool: what the best epoch's network is right about."""
    small = _shrunk(faces, "PublicTest", plan.side)
    logits = predict(weights.load(path), small, averaging="single", device=plan.device)
    right: np.ndarray = logits.argmax(dim=1).numpy() == faces.labels
    return right
