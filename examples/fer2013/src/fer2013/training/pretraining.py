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
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from safetensors.torch import save as safetensors_bytes
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import vgg19_bn

from ..data.tiny_imagenet import CLASSES, photographs
from ..files import write_whole
from ..networks.weights import mismatch
from .checkpoints import WholeCheckpoints, read
from .lightning_messages import suppress_messages
from .photograph_classifier import EPOCHS_BEFORE, PhotographClassifier, Recipe

#: Steps between updates of the averaged weights, which cost as much as a fused optimiser's.
_AVERAGED_EVERY = 8

#: Epochs between measurements on the validation photographs.
_MEASURED_EVERY = 5


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
        begun.pop(EPOCHS_BEFORE, None)
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
    task = PhotographClassifier(model, train, recipe, epochs_before=epochs_before)
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
        return int(read(last)["hyper_parameters"].get(EPOCHS_BEFORE, 0))
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
    return int(seen + begun.get(EPOCHS_BEFORE, 0))
