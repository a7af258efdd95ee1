"""Pretraining on Tiny ImageNet: a substitute for ImageNet's weights where they cannot be had.

VGG19 with BatchNorm is trained; folding BatchNorm into the convolutions gives the plain VGG19 of
configurations 1 to 4. Both are written under torchvision's names, so that ``train --weights FILE``
takes them as it takes torchvision's own files.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import vgg19_bn

from ..data.tiny_imagenet import CLASSES, photographs
from ..files import write_whole
from ..networks.matrix_convolution import use_matrix_products
from ..networks.weights import mismatch
from .checkpoints import WholeCheckpoints, read
from .lightning_messages import suppress_messages
from .optimization import one_cycle
from .photograph_batches import Batches, Split, normalized, resized

#: Steps between updates of the averaged weights, which cost as much as a fused optimiser's.
_AVERAGED_EVERY = 8

#: Part of the steps in which the learning rate climbs.
_WARM_UP = 0.2

#: The name under which a checkpoint says how many epochs its run's first weights had seen.
_BEFORE = "epochs_before"

#: Epochs between measurements on the validation photographs.
_MEASURED_EVERY = 5


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


def network() -> nn.Module:
    """Return torchvision's VGG19 with BatchNorm, with a mean over places and one linear layer."""
    model: Any = vgg19_bn(num_classes=CLASSES)
    model.avgpool = nn.AdaptiveAvgPool2d(1)
    model.classifier = nn.Linear(512, CLASSES)
    found: nn.Module = model
    return found


def folded(features: nn.Sequential) -> nn.Sequential:
    """Return the features of a plain VGG, equal to those with BatchNorm in evaluation mode.

    Args:
        features: convolutions, each followed by BatchNorm and ReLU, and poolings.
    """
    layers: list[nn.Module] = []
    for layer in features:
        if isinstance(layer, nn.BatchNorm2d):
            convolution = layers.pop()
            if not isinstance(convolution, nn.Conv2d):
                raise TypeError(
                    f"expected a convolution before BatchNorm, got {type(convolution).__name__}"
                )
            layers.append(fuse_conv_bn_eval(convolution.eval(), layer.eval()))
        else:
            layers.append(layer)
    return nn.Sequential(*layers)


class Pretraining(lightning.LightningModule):
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
        self.save_hyperparameters({**dataclasses.asdict(recipe), _BEFORE: epochs_before})
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


def fit(
    model: nn.Module,
    folder: Path,
    out: Path,
    recipe: Recipe,
    *,
    device: str = "auto",
    precision: Any = "bf16-mixed",
    epochs_before: int = 0,
) -> float:
    """Train a classifier of Tiny ImageNet's photographs; resume where a run stopped.

    Args:
        model: (N, 3, H, W) -> (N, 200) logits; it has the averaged weights afterwards.
        folder: see :func:`fer2013.data.tiny_imagenet.photographs`.
        out: the folder of ``last.ckpt``, which is written after each epoch.
        recipe: how it is trained.
        device: Lightning's accelerator.
        precision: Lightning's.
        epochs_before: epochs that the model's weights have seen.

    Returns:
        Top-1 on the validation photographs, which nothing was selected on.

    Raises:
        FileNotFoundError: there are no photographs.
        ValueError: ``out`` holds a run of another recipe, or there is no whole batch.
    """
    last = out / "last.ckpt"
    if last.is_file():
        # A run of an earlier version lacks what has come since, which it then did not change.
        begun = {**dataclasses.asdict(Recipe()), **read(last)["hyper_parameters"]}
        begun.pop(_BEFORE, None)
        if begun != dataclasses.asdict(recipe):
            raise ValueError(
                f"{out} holds a run of another recipe, {begun}: give the same one, or another "
                "folder with --out"
            )
    train = photographs(folder, "train", limit=recipe.limit)
    val = photographs(folder, "val", limit=recipe.limit)
    if len(train[1]) < recipe.batch:
        raise ValueError(
            f"expected at least one batch of {recipe.batch} photographs, got {len(train[1])}"
        )
    task = Pretraining(model, train, recipe, epochs_before=epochs_before)
    with suppress_messages():
        trainer = lightning.Trainer(
            accelerator=device,
            devices=1,
            precision=precision,
            max_epochs=recipe.epochs,
            check_val_every_n_epoch=_MEASURED_EVERY,
            reload_dataloaders_every_n_epochs=1,
            callbacks=[
                ModelCheckpoint(
                    out, "last", save_on_train_epoch_end=True, enable_version_counter=False
                ),
                *(
                    [
                        EMAWeightAveraging(
                            decay=recipe.average**_AVERAGED_EVERY,
                            update_every_n_steps=_AVERAGED_EVERY,
                        )
                    ]
                    if recipe.average
                    else []
                ),
            ],
            logger=False,
            num_sanity_val_steps=0,
            # Its thread takes a tenth of a core from a step's own threads.
            enable_progress_bar=False,
            enable_model_summary=sys.stderr.isatty(),
            plugins=[WholeCheckpoints()],
        )
        loader = DataLoader(TensorDataset(*val), batch_size=500)
        trainer.fit(task, val_dataloaders=loader, ckpt_path=last if last.is_file() else None)
        (found,) = trainer.validate(task, loader, verbose=False)
    return float(found["top1"])


def pretrain(
    folder: Path, out: Path, recipe: Recipe, *, device: str = "auto", precision: Any = "bf16-mixed"
) -> list[str]:
    """Pretrain VGG19 with BatchNorm, and write it and the plain VGG19 that it folds into.

    Args:
        folder: see :func:`fer2013.data.tiny_imagenet.photographs`.
        out: the folder of ``vgg19_bn.safetensors`` and ``vgg19.safetensors``.
        recipe: how it is trained.
        device: Lightning's accelerator.
        precision: Lightning's.

    Returns:
        What was written, a line each.

    Raises:
        FileNotFoundError: there are no photographs, or there is no checkpoint to start from.
        ValueError: as :func:`fit`.
    """
    lightning.seed_everything(recipe.seed, verbose=False)
    model = network()
    before = _begin(model, recipe, out / "last.ckpt")
    top1 = fit(model, folder, out, recipe, device=device, precision=precision, epochs_before=before)
    model = model.cpu().float().eval()
    epochs = before + recipe.epochs
    facts = {"pretrained_on": "Tiny ImageNet", "top1": f"{top1:.4f}", "epochs": str(epochs)}
    lines = [f"top-1 on Tiny ImageNet's validation photographs: {top1:.1%}"]
    features: Any = model.features
    for name, part in (("vgg19_bn", features), ("vgg19", folded(features))):
        state = {f"features.{k}": v.contiguous() for k, v in part.state_dict().items()}
        path = out / f"{name}.safetensors"
        write_whole(path, safetensors_bytes(state, metadata=facts))
        lines.append(f"{path}: give it to train with --weights")
    return lines


def _begin(model: nn.Module, recipe: Recipe, last: Path) -> int:
    """Give a network the weights that a run begins with, and return the epochs they have seen.

    Args:
        model: the network.
        recipe: its ``start`` names the earlier run.
        last: the run's own checkpoint; where it is there, the run resumes from that.

    Raises:
        FileNotFoundError: there is no checkpoint to start from.
        ValueError: it is damaged, of another network, or of a run that has not ended.
    """
    if last.is_file():
        return int(read(last)["hyper_parameters"].get(_BEFORE, 0))
    if recipe.start is None:
        return 0
    start = Path(recipe.start)
    checkpoint = read(start)
    begun, prefix = checkpoint["hyper_parameters"], "model."
    state = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items()}
    if found := mismatch(model, state):
        raise ValueError(f"expected as --start what pretrain wrote, got {start}: {found}")
    seen = checkpoint["epoch"] + 1
    if seen != begun["epochs"]:
        raise ValueError(
            f"expected as --start a run that has ended, got {start} after {seen} of "
            f"{begun['epochs']} epochs: resume it first"
        )
    model.load_state_dict(state)
    return int(seen + begun.get(_BEFORE, 0))
