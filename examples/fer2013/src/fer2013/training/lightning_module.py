"""The training and validation steps of all configurations."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchmetrics.aggregation import MeanMetric
from torchmetrics.classification import MulticlassAccuracy
from torchvision.transforms import v2

from ..configurations.config import Config
from ..data.faces import CLASSES, SIDE
from ..evaluation.predictions import averaged_logits
from ..networks import architectures, weights
from ..networks.matrix_convolution import use_matrix_products
from . import optimization
from .augmentation import augment


class EmotionClassifier(lightning.LightningModule):
    """A network with its loss, optimiser and metrics.

    Args:
        config: the configuration.
        run: further settings to store in checkpoints, including "seed".
        loss: the loss; see :func:`fer2013.training.optimization.loss`.
        continued: whether the initial weights come from an earlier run.
    """

    def __init__(
        self, config: Config, run: dict[str, Any], loss: nn.Module, *, continued: bool = False
    ) -> None:
        super().__init__()
        self.save_hyperparameters({**dataclasses.asdict(config), **run})
        self.config = config
        self.continued = continued
        self.seed = int(run["seed"])
        mixup = config.augmentation.mixup
        self.augment = augment(config.augmentation)
        self.mix = v2.MixUp(alpha=mixup, num_classes=len(CLASSES)) if mixup else None
        model = architectures.build(config)
        self.model: nn.Module = model.to(memory_format=torch.channels_last)
        use_matrix_products(self.model)
        optimization.freeze(self.model, config)
        self.loss = loss
        # In a tuple the teacher is not a submodule: it is not trained, averaged or saved.
        self.teacher: tuple[nn.Module, ...] = (weights.load(),) if config.distillation else ()
        self.train_accuracy = MulticlassAccuracy(len(CLASSES), average="micro")
        # Lightning's own mean rounds the mean batch size of the processes to an integer.
        # nan_strategy keeps a loss that is NaN.
        self.val_loss = MeanMetric(nan_strategy=math.nan)
        self.val_accuracy = MulticlassAccuracy(len(CLASSES), average="micro")

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the loss of one augmented batch."""
        # Seed each step, so that a resumed run draws the same random numbers.
        state = np.random.SeedSequence((self.seed, self.global_step, self.global_rank))
        torch.manual_seed(int(state.generate_state(1, np.uint64)[0] >> 1))
        images, labels = batch
        # In full precision: bfloat16 would move corners by a fifth of a pixel.
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            images = self.augment(images)
        images, mixed = self.mix(images, labels) if self.mix else (images, labels)
        wanted = self._distilled(images, mixed) if self.teacher else mixed
        small = self.current_epoch < self.config.small_epochs
        side = self.config.small_side if small else self.config.side
        if small:
            images = interpolate(images, (side, side), mode="bilinear", antialias=True)
        self._resize_to(side)
        logits = self.model(images.contiguous(memory_format=torch.channels_last))
        loss: Tensor = self.loss(logits.float(), wanted) * self._share(labels)
        self.train_accuracy(logits, mixed.argmax(dim=1) if self.mix else labels)
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": len(images)}
        self.log("train_loss", loss, sync_dist=True, **options)
        self.log("train_accuracy", self.train_accuracy, **options)
        return loss

    def _distilled(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return (N, 7) labels, blended with the teacher's probabilities for the same images."""
        if labels.ndim == 1:
            labels = nn.functional.one_hot(labels, len(CLASSES)).float()
        with torch.no_grad():
            faces = interpolate(images, (SIDE, SIDE), mode="bilinear")
            probabilities = self.teacher[0].to(faces.device)(faces).float().softmax(dim=1)
        return labels.lerp(probabilities, self.config.distillation)

    def _resize_to(self, side: int) -> None:
        if isinstance(self.model, architectures.EmotionVGG):
            self.model.side = side

    def _share(self, labels: Tensor) -> Tensor | float:
        """Return the factor that makes the mean of the processes' losses that of all their images.

        A class-weighted loss is divided by the sum of its images' weights, which differs between
        processes.
        """
        weight = self.loss.weight
        if self.trainer.world_size == 1 or not isinstance(weight, Tensor):
            return 1.0
        total = weight[labels].sum()
        mean: Any = self.trainer.strategy.reduce(total.clone(), reduce_op="mean")
        share: Tensor = total / mean
        return share

    def on_train_start(self) -> None:
        """Stop a resumed run at once if it had stopped early and was killed before its export."""
        stopper: Any = self.trainer.early_stopping_callback
        if stopper is not None and stopper.wait_count >= stopper.patience:
            self.trainer.should_stop = True

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Measure cross-entropy and accuracy, without ten crops, which would take too long."""
        images, labels = batch
        averaging = "single" if self.config.averaging == "ten-crop" else self.config.averaging
        self._resize_to(self.config.side)
        logits = averaged_logits(self.model, images, averaging)
        self.val_accuracy(logits, labels)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        self.val_loss.update(loss, len(images))
        self.log("val_loss", self.val_loss, batch_size=len(images), prog_bar=True)
        self.log("val_accuracy", self.val_accuracy, batch_size=len(images), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """Return the optimiser and the schedule."""
        optimizer = optimization.optimizer(self.model, self.config, continued=self.continued)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = optimization.schedule(optimizer, self.config, steps)
        if schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": schedule}
