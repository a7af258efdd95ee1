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


def train_and_judge(
    faces: Faces, held: np.ndarray, out: Path, plan: Plan, seed: int, *, start: str = "none"
) -> tuple[Path, np.ndarray]:
    """Train on some faces and select on the others, as if they were the official splits.

    Args:
        faces: all of them.
        held: (n,) indices of those to select on.
        out: the run's folder.
        plan: how large it is.
        seed: of the training.
        start: the weights to start from, "none" or a file.

    Returns:
        The weights of the best epoch, and what they are right about, (n,) bool.
    """
    usages = np.full(len(faces), USAGES.index("Training"))
    usages[held] = USAGES.index("PublicTest")
    # First those to train on, then those to select on, each in their order.
    order = np.argsort(usages, kind="stable")
    parts = dataclasses.replace(_shrunk(faces, plan.side), usages=usages).take(order)
    machine = Machine(device=plan.device, precision="32-true")
    path = train(plan.config(start), parts, out=out, seed=seed, machine=machine)
    if path is None:
        raise ValueError("expected a single process, got several: run it without --devices")
    return path, right(path, faces.take(held), plan)


def _shrunk(faces: Faces, side: int) -> Faces:
    size = (side, side)
    images = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in faces.images]
    return dataclasses.replace(faces, images=np.stack(images))


def right(path: Path, faces: Faces, plan: Plan) -> np.ndarray:
    """Return (N,) bool: what the best epoch's network is right about."""
    small = _shrunk(faces, plan.side)
    logits = predict(weights.load(path), small, averaging="single", device=plan.device)
    right: np.ndarray = logits.argmax(dim=1).numpy() == faces.labels
    return right
