"""Training with Lightning: it owns loops, checkpoints, resuming, precision and devices."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy
from torchvision.transforms import InterpolationMode, v2

from .config import CONFIGS, Config
from .data import CLASSES, FaceDataset, load
from .model import BaseCNN


def mirrored_logits(model: nn.Module, images: Tensor) -> Tensor:
    """Return (N, 7) logits averaged over each picture and its mirror image."""
    return (model(images) + model(images.flip(-1))) / 2


class EmotionTask(lightning.LightningModule):
    """A network with its loss, optimiser and metrics."""

    def __init__(self, name: str = "base", **changes: object) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.config: Config = dataclasses.replace(CONFIGS[name], **changes)
        self.model = BaseCNN(dropout=self.config.dropout).to(memory_format=torch.channels_last)
        self.loss = nn.CrossEntropyLoss(label_smoothing=self.config.label_smoothing)
        self.train_accuracy = MulticlassAccuracy(len(CLASSES), average="micro")
        self.val_accuracy = MulticlassAccuracy(len(CLASSES), average="micro")

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the loss of one augmented batch."""
        images, labels = batch
        logits = self.model(images.contiguous(memory_format=torch.channels_last))
        loss = self.loss(logits, labels)
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

    def configure_optimizers(self) -> dict[str, object]:
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
        ]
    )


def train(
    name: str,
    data: Path,
    *,
    out: Path,
    epochs: int | None = None,
    seed: int = 0,
    precision: str = "bf16-mixed",
    device: str = "auto",
) -> Path:
    """Train a configuration on Training, select on PublicTest; resume where a run stopped.

    Args:
        name: a name in :data:`fer2013.config.CONFIGS`.
        data: what :func:`fer2013.data.load` takes.
        out: the run's folder; if it holds a ``last.ckpt`` the run goes on from there.
        epochs: overrides the configuration's.
        seed: of the weights, the order and the augmentation.
        precision: Lightning's ``--precision``.
        device: Lightning's accelerator, such as ``cpu``, ``cuda`` or ``auto``.

    Returns:
        The checkpoint with the best accuracy on PublicTest.
    """
    lightning.seed_everything(seed, workers=True)
    faces = load(data)
    changes = {} if epochs is None else {"epochs": epochs}
    task = EmotionTask(name, **changes)
    config = task.config
    workers = {"num_workers": 1, "persistent_workers": True}
    training = DataLoader(
        FaceDataset(faces.split("Training"), augmentation(config)),
        config.batch_size,
        shuffle=True,
        drop_last=True,
        **workers,
    )
    validation = DataLoader(FaceDataset(faces.split("PublicTest")), 512)
    best = ModelCheckpoint(out, "best", monitor="val_accuracy", mode="max", save_last=True)
    trainer = lightning.Trainer(
        accelerator=device,
        devices=1,
        precision=precision,
        max_epochs=config.epochs,
        callbacks=[
            best,
            EarlyStopping("val_accuracy", patience=config.patience, mode="max"),
            LearningRateMonitor(),
        ],
        logger=CSVLogger(out, name="", version=""),
        log_every_n_steps=50,
    )
    last = out / "last.ckpt"
    trainer.fit(task, training, validation, ckpt_path=last if last.is_file() else None)
    return Path(best.best_model_path)
