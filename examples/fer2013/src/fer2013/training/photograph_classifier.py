"""One step of pretraining and its measure, and the recipe that says how a run is trained."""

from __future__ import annotations

import dataclasses
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..networks.matrix_convolution import use_matrix_products
from .optimization import one_cycle
from .photograph_batches import Batches, Split, normalized, resized

#: Part of the steps in which the learning rate climbs.
_WARM_UP = 0.2

#: The name under which a checkpoint says how many epochs its run's first weights had seen.
EPOCHS_BEFORE = "epochs_before"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is pretrained.

    Attributes:
        epochs: how often each photograph is seen.
        smallest: pixels to which photographs are shrunk in the first epoch, at least 32, of which
            VGG19's five poolings leave one; they grow late, since small ones are cheap.
        side: pixels in the last epoch, and when top-1 is measured.
        batch: photographs in a step.
        rate: highest learning rate; it climbs, and falls along a cosine.
        weight_decay: of weights with more than one dimension.
        label_smoothing: of the cross-entropy.
        average: decay a step of the weights' exponential moving average; 0 keeps the weights.
        seed: of weights, order and augmentation.
        start: ``last.ckpt`` of an earlier run, whose weights it begins with; None: random ones.
        limit: only so many photographs of each split, to try it out.
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
                f"expected photographs that grow from at least 32 pixels, got {self.smallest} to "
                f"{self.side}"
            )

    @property
    def sizes(self) -> list[int]:
        """The side of the photographs in each epoch, a multiple of 4."""
        grown = self.smallest + (self.side - self.smallest) * torch.linspace(0, 1, self.epochs) ** 6
        sizes: list[int] = grown.div(4).round().mul(4).int().tolist()
        return sizes


class PhotographClassifier(lightning.LightningModule):
    """A classifier of photographs with its loss, optimiser and measure.

    Args:
        model: (N, 3, H, W) -> (N, classes) logits.
        train: photographs and classes.
        recipe: how it is trained.
        epochs_before: epochs that its first weights have seen.
    """

    def __init__(
        self, model: nn.Module, train: Split, recipe: Recipe, *, epochs_before: int = 0
    ) -> None:
        super().__init__()
        self.save_hyperparameters({**dataclasses.asdict(recipe), EPOCHS_BEFORE: epochs_before})
        self.model = model.to(memory_format=torch.channels_last)
        use_matrix_products(self.model)
        self.photographs, self.recipe = train, recipe

    def train_dataloader(self) -> Batches:
        """Return the batches of the current epoch, made on the device."""
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
        """Measure top-1 at the final size."""
        pixels, classes = batch
        right = self.model(resized(normalized(pixels), self.recipe.side)).argmax(dim=1) == classes
        self.log("top1", right.float().mean(), batch_size=len(classes))

    def on_train_epoch_end(self) -> None:
        """Say how far the run is."""
        loss = self.trainer.callback_metrics.get("loss")
        # A run that was stopped as an epoch ended has no steps of it to tell of.
        if self.trainer.is_global_zero and loss is not None:
            side = self.recipe.sizes[self.current_epoch]
            print(
                f"epoch {self.current_epoch + 1} of {self.recipe.epochs}, {side} pixels: training "
                f"loss {float(loss):.2f}",
                flush=True,
            )

    def on_validation_epoch_end(self) -> None:
        """Say how good the averaged weights are."""
        if self.trainer.state.fn == "fit" and self.trainer.is_global_zero:
            top1 = float(self.trainer.callback_metrics["top1"])
            print(f"top-1 {top1:.1%} on the validation photographs", flush=True)

    def configure_optimizers(self) -> Any:
        """Return SGD and one cycle of its rate."""
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
