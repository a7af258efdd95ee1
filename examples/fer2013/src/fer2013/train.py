"""Training with Lightning: it owns loops, checkpoints, resuming, precision and devices."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
)
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy
from torchvision.transforms import InterpolationMode, v2

from . import weights
from .config import Config
from .data import CLASSES, FaceDataset, Faces
from .evaluate import AVERAGING, evaluate, mirrored_logits
from .model import BaseCNN


class EmotionTask(lightning.LightningModule):
    """A network with its loss, optimiser and metrics."""

    def __init__(self, config: Config, run: dict[str, Any]) -> None:
        super().__init__()
        self.save_hyperparameters({**dataclasses.asdict(config), **run})
        self.config = config
        self.mix = v2.MixUp(alpha=config.mixup, num_classes=len(CLASSES)) if config.mixup else None
        self.model = BaseCNN(dropout=config.dropout).to(memory_format=torch.channels_last)
        self.loss = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
        self.train_accuracy = MulticlassAccuracy(len(CLASSES), average="micro")
        self.val_accuracy = MulticlassAccuracy(len(CLASSES), average="micro")

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the loss of one augmented batch."""
        images, labels = batch
        images, wanted = self.mix(images, labels) if self.mix else (images, labels)
        logits = self.model(images.contiguous(memory_format=torch.channels_last))
        loss: Tensor = self.loss(logits, wanted)
        self.train_accuracy(logits, labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        self.log("train_accuracy", self.train_accuracy, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Measure as everywhere in this project: averaged over the picture and its mirror."""
        images, labels = batch
        logits = mirrored_logits(self.model, images)
        self.val_accuracy(logits, labels)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        self.log("val_loss", loss, sync_dist=True)
        self.log("val_accuracy", self.val_accuracy, prog_bar=True)

    def configure_optimizers(self) -> Any:
        """Return SGD with Nesterov momentum under the one-cycle policy."""
        c = self.config
        optimizer = torch.optim.SGD(
            self.parameters(), c.peak_rate, c.momentum, weight_decay=c.weight_decay, nesterov=True
        )
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, c.peak_rate, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def augmentation(config: Config) -> v2.Transform:
    """Return the transform of one (1, 48, 48) training face."""
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomAffine(
                config.rotation,
                (config.shift, config.shift),
                config.scale,
                config.shear,
                interpolation=InterpolationMode.BILINEAR,
            ),
            v2.RandomErasing(config.erasing, scale=(0.02, 0.2), value=0.5),
        ]
    )


def train(
    config: Config,
    faces: Faces,
    *,
    out: Path,
    seed: int = 0,
    precision: Any = "bf16-mixed",
    device: str = "auto",
    start: Path | None = None,
) -> Path:
    """Train on Training, select the best epoch on PublicTest; resume where a run stopped.

    Args:
        config: what to train, and how.
        faces: FER2013 with both splits.
        out: the run's folder; if it holds a ``last.ckpt`` the run goes on from there.
        seed: of the weights, the order and the augmentation.
        precision: Lightning's ``precision``, such as ``bf16-mixed`` or ``32-true``.
        device: Lightning's accelerator, such as ``cpu``, ``cuda`` or ``auto``.
        start: the weights file to start from, where the configuration starts from another one's.

    Returns:
        The weights of the best epoch, a safetensors file in ``out``.

    Raises:
        ValueError: ``out`` holds a run of another configuration, a split is missing, or the
            weights to start from are.
    """
    if (start is None) != (config.start is None):
        raise ValueError(
            f"{config.name!r} starts from {config.start or 'random weights'}: "
            + (f"train {config.start!r} first" if config.start else "give no weights to start from")
        )
    lightning.seed_everything(seed, workers=True)
    run = {"seed": seed, "precision": precision}
    origin = {} if start is None else {"started_from": weights.read_facts(start)}
    task = EmotionTask(config, run)
    if start is not None:
        task.model.load_state_dict(weights.load(start).state_dict())
    best = ModelCheckpoint(out, "best", monitor="val_accuracy", mode="max")
    trainer = lightning.Trainer(
        accelerator=device,
        devices=1,
        precision=precision,
        max_epochs=config.epochs,
        callbacks=[
            best,
            # save_last would save only together with a best one: a stopped run would lose more.
            ModelCheckpoint(out, "last", enable_version_counter=False),
            EarlyStopping("val_accuracy", patience=config.patience, mode="max"),
            LearningRateMonitor(),
            *([EMAWeightAveraging(decay=config.average)] if config.average else []),
        ],
        logger=CSVLogger(out, name="", version=""),
    )
    trainer.fit(
        task,
        DataLoader(
            FaceDataset(faces.split("Training"), augmentation(config)),
            config.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=1,
            persistent_workers=True,
        ),
        DataLoader(FaceDataset(faces.split("PublicTest")), 512),
        ckpt_path=_stopped(config, run, out),
    )
    return export(config, {**run, **origin}, Path(best.best_model_path), faces, out=out)


def _stopped(config: Config, run: dict[str, Any], out: Path) -> Path | None:
    """Return the checkpoint from which a run goes on, if it is one of the same configuration."""
    path = out / "last.ckpt"
    if not path.is_file():
        return None
    started = torch.load(path, map_location="cpu", weights_only=True)["hyper_parameters"]
    wanted = {**dataclasses.asdict(config), **run}
    if changed := [k for k in wanted if started.get(k) != wanted[k]]:
        raise ValueError(
            f"{out} holds a run with other values of {', '.join(changed)}: go on with the same "
            "ones, or train into another folder with --out"
        )
    return path


def export(
    config: Config, run: dict[str, Any], checkpoint: Path, faces: Faces, *, out: Path
) -> Path:
    """Write a checkpoint's network with what is known of it, measured on the file's own weights.

    Returns:
        The safetensors file.
    """
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    prefix = "model."
    state = {
        k.removeprefix(prefix): v for k, v in saved["state_dict"].items() if k.startswith(prefix)
    }
    model = BaseCNN()
    model.load_state_dict(weights.compact(state))
    measured = evaluate(model, faces.split("PublicTest"))
    facts = {
        "network": "BaseCNN",
        "config": dataclasses.asdict(config),
        **run,
        "best_epoch": saved["epoch"] + 1,
        "trained_on": f"FER2013 Training, {len(faces.split('Training'))} faces",
        "selected_on": f"FER2013 PublicTest, {len(faces.split('PublicTest'))} faces",
        "accuracy": measured.accuracy,
        "accuracy_on": "PublicTest, on which the epoch was selected",
        "averaging": AVERAGING,
        "report": measured.report,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "lightning": lightning.__version__,
        },
    }
    path = out / f"{config.name}.safetensors"
    weights.save(state, facts, path)
    return path
