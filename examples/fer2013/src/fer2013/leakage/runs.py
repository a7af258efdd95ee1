"""Short training runs of the leakage experiments, whose recipe lets the network memorise."""

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
    """The size of the experiments.

    Attributes:
        faces: maximum number of training and validation images together; up to half of them have
            copies.
        epochs: epochs of each training.
        seeds: number of repetitions with other images, splits and weights.
        side: side in pixels to which images are resized.
        batch_size: batch size.
        device: torch device.
    """

    faces: int = 5000
    epochs: int = 16
    seeds: int = 2
    side: int = 24
    batch_size: int = 128
    device: str = "cpu"

    def config(self, start: str = "none") -> Config:
        """Return the training configuration; ``start`` is "none" or a weights file."""
        return dataclasses.replace(
            CONFIGS["first"],
            name="leakage",
            weights=start,
            epochs=self.epochs,
            batch_size=self.batch_size,
            # The full rate would overwrite the weights to start from, and with them the leak.
            rate=0.05 if start == "none" else 0.01,
            dropout=0.0,
            label_smoothing=0.0,
            augmentation=Augmentation(rotation=0.0),  # only mirroring
            averaging="single",
            patience=self.epochs,
        )


def train_and_judge(
    faces: Faces, held: np.ndarray, out: Path, plan: Plan, seed: int, *, start: str = "none"
) -> tuple[Path, np.ndarray]:
    """Train with a given validation set.

    Args:
        faces: all images.
        held: (n,) indices of the validation images.
        out: the run's folder.
        plan: the size of the experiments.
        seed: seed of the training.
        start: initial weights, "none" or a file.

    Returns:
        The weights of the best epoch, and which validation images it classifies correctly, (n,)
        bool.
    """
    usages = np.full(len(faces), USAGES.index("Training"))
    usages[held] = USAGES.index("PublicTest")
    order = np.argsort(usages, kind="stable")
    parts = dataclasses.replace(_shrunk(faces, plan.side), usages=usages).take(order)
    machine = Machine(device=plan.device, precision="32-true")
    train(plan.config(start), parts, out=out, seed=seed, machine=machine)
    path = out / "leakage.safetensors"
    return path, right(path, faces.take(held), plan)


def _shrunk(faces: Faces, side: int) -> Faces:
    size = (side, side)
    images = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in faces.images]
    return dataclasses.replace(faces, images=np.stack(images))


def right(path: Path, faces: Faces, plan: Plan) -> np.ndarray:
    """Return which images a network classifies correctly, (N,) bool."""
    small = _shrunk(faces, plan.side)
    logits = predict(weights.load(path), small, averaging="single", device=plan.device)
    right: np.ndarray = logits.argmax(dim=1).numpy() == faces.labels
    return right
