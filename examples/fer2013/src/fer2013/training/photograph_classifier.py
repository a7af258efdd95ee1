"""Pretraining's recipe, its augmented batches, and its training and validation steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..networks.architectures import IMAGENET_DEVIATION, IMAGENET_MEAN
from ..networks.matrix_convolution import use_matrix_products
from .optimization import one_cycle

#: Fraction of the steps in which the learning rate rises.
_WARM_UP = 0.2

#: Checkpoints' key for the number of epochs of the earlier run that the weights come from.
EPOCHS_BEFORE = "epochs_before"

#: (N, 3, H, W) uint8 photographs and (N,) classes.
Split = tuple[Tensor, Tensor]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The settings of a pretraining run.

    Attributes:
        epochs: number of epochs.
        smallest: side of the photographs in the first epoch, at least 32 pixels, of which VGG19's
            five poolings leave one; it grows late, as small photographs are faster.
        side: side in pixels in the last epoch and in validation.
        batch: batch size.
        rate: maximum learning rate, after a warm-up and before a cosine decay.
        weight_decay: weight decay of parameters with more than one dimension.
        label_smoothing: label smoothing of the cross-entropy.
        average: decay per step of the exponential moving average of the weights; 0 disables it.
        seed: seed of weights, order and augmentation.
        start: ``last.ckpt`` of an earlier run with the initial weights; None for random weights.
        limit: maximum number of photographs of each split, for a trial run.

    Raises:
        ValueError: ``smallest`` is below 32 or above ``side``.
    """

    epochs: int = 15
    smallest: int = 32
    side: int = 48
    batch: int = 128
    rate: float = 0.1
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    average: float = 0.998
    seed: int = 0
    start: str | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        """Check the sizes."""
        if not 32 <= self.smallest <= self.side:
            raise ValueError(
                f"expected --smallest between 32 and {self.side} pixels, got {self.smallest}"
            )

    @property
    def sizes(self) -> list[int]:
        """The side of the photographs in each epoch, a multiple of 4."""
        grown = self.smallest + (self.side - self.smallest) * torch.linspace(0, 1, self.epochs) ** 6
        sizes: list[int] = grown.div(4).round().mul(4).int().tolist()
        return sizes


class Batches:
    """Shuffled, flipped and cropped batches; they depend only on the seed and the epoch.

    Args:
        split: photographs and classes, on the training device.
        batch: batch size.
        size: side of the photographs in pixels.
        seed: seed of the run.
        epoch: epoch from 0.
    """

    def __init__(self, split: Split, *, batch: int, size: int, seed: int, epoch: int) -> None:
        self.pixels, self.classes = split
        self.batch, self.size = batch, size
        self.draw = torch.Generator().manual_seed(seed * 10_007 + epoch)

    def __len__(self) -> int:
        """Return the number of whole batches; a remainder is dropped."""
        return len(self.classes) // self.batch

    def __iter__(self) -> Iterator[Split]:
        """Yield normalised images (batch, 3, size, size), and classes."""
        order = torch.randperm(len(self.classes), generator=self.draw)
        for rows in order[: len(self) * self.batch].view(-1, self.batch):
            chosen = rows.to(self.pixels.device)
            images = normalized(self.pixels[chosen])
            flipped = (torch.rand(len(rows), generator=self.draw) < 0.5).to(images.device)
            images = images.where(~flipped.view(-1, 1, 1, 1), images.flip(3))
            yield self._cropped(images), self.classes[chosen]

    def _cropped(self, images: Tensor) -> Tensor:
        """Crop a random square, half to all of the side, from each eighth of a batch; resize it."""
        side = images.shape[-1]
        parts = []
        for part in images.chunk(8):
            cut = int(torch.randint(side // 2, side + 1, (), generator=self.draw))
            top, left = torch.randint(side - cut + 1, (2,), generator=self.draw).tolist()
            cut_out = part[:, :, top : top + cut, left : left + cut]
            parts.append(resized(cut_out, self.size))
        return torch.cat(parts)


def normalized(pixels: Tensor) -> Tensor:
    """Convert photographs (N, 3, H, W) uint8 to float32, normalised for torchvision's weights."""
    mean, deviation = (
        pixels.new_tensor(values, dtype=torch.float32).view(3, 1, 1)
        for values in (IMAGENET_MEAN, IMAGENET_DEVIATION)
    )
    return (pixels.float() / 255 - mean) / deviation


def resized(images: Tensor, side: int) -> Tensor:
    """Resize images (N, C, H, W) to a side in pixels."""
    if images.shape[-1] == side:
        return images
    return functional.interpolate(
        images, side, mode="bilinear", antialias=True, align_corners=False
    )


class PhotographClassifier(lightning.LightningModule):
    """A classifier of photographs with its loss, optimiser and metric.

    Args:
        model: (N, 3, H, W) -> (N, classes) logits.
        train: photographs and classes.
        recipe: the settings.
        epochs_before: number of epochs of the earlier run that the weights come from.
    """

    def __init__(
        self, model: nn.Module, train: Split, recipe: Recipe, *, epochs_before: int
    ) -> None:
        super().__init__()
        self.save_hyperparameters({**dataclasses.asdict(recipe), EPOCHS_BEFORE: epochs_before})
        self.model = model.to(memory_format=torch.channels_last)
        use_matrix_products(self.model)
        self.photographs, self.recipe = train, recipe

    def train_dataloader(self) -> Batches:
        """Return the batches of the current epoch, created on the training device."""
        pixels, classes = self.photographs
        self.photographs = pixels.to(self.device), classes.to(self.device)
        recipe, epoch = self.recipe, self.current_epoch
        return Batches(
            self.photographs,
            batch=recipe.batch,
            size=recipe.sizes[epoch],
            seed=recipe.seed,
            epoch=epoch,
        )

    def training_step(self, batch: Split, _: int) -> Tensor:
        """Return the loss of a batch."""
        images, classes = batch
        logits = self.model(images.contiguous(memory_format=torch.channels_last))
        loss = functional.cross_entropy(
            logits.float(), classes, label_smoothing=self.recipe.label_smoothing
        )
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(classes))
        return loss

    def validation_step(self, batch: Split, _: int) -> None:
        """Measure the top-1 accuracy at the final size."""
        pixels, classes = batch
        right = self.model(resized(normalized(pixels), self.recipe.side)).argmax(dim=1) == classes
        self.log("top1", right.float().mean(), batch_size=len(classes))

    def on_train_epoch_end(self) -> None:
        """Print the epoch's training loss."""
        loss = self.trainer.callback_metrics.get("loss")
        # A run that was stopped at the end of an epoch resumes without steps, hence without loss.
        if self.trainer.is_global_zero and loss is not None:
            side = self.recipe.sizes[self.current_epoch]
            print(
                f"epoch {self.current_epoch + 1} of {self.recipe.epochs}, {side} pixels: training "
                f"loss {float(loss):.2f}",
                flush=True,
            )

    def on_validation_epoch_end(self) -> None:
        """Print the accuracy of the averaged weights."""
        if self.trainer.state.fn == "fit" and self.trainer.is_global_zero:
            top1 = float(self.trainer.callback_metrics["top1"])
            print(f"top-1 {top1:.1%} on the validation photographs", flush=True)

    def configure_optimizers(self) -> Any:
        """Return SGD with one cycle of the learning rate."""
        parts = (
            [p for p in self.parameters() if p.ndim > 1],
            [p for p in self.parameters() if p.ndim <= 1],
        )
        decays = self.recipe.weight_decay, 0.0
        optimizer = torch.optim.SGD(
            [{"params": p, "weight_decay": d} for p, d in zip(parts, decays, strict=True)],
            self.recipe.rate,
            momentum=0.9,
            nesterov=True,
            fused=True,
        )
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = one_cycle(optimizer, steps, _WARM_UP, cycle_momentum=False)
        return {"optimizer": optimizer, "lr_scheduler": schedule}
