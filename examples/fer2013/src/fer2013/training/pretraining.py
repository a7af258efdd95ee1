"""Pretraining on Tiny ImageNet, as a substitute for ImageNet's weights.

A VGG19 with BatchNorm is trained; fusing BatchNorm into the convolutions gives the plain VGG19 of
configurations 1 to 4. Both files have torchvision's names, for ``train --weights FILE``.
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
from ..files import write_bytes
from ..networks.weights import mismatch
from .checkpoints import WholeCheckpoints, read
from .lightning_messages import suppress_messages
from .photograph_classifier import EPOCHS_BEFORE, PhotographClassifier, Recipe

#: Steps between updates of the averaged weights, each of which costs as much as a fused optimiser.
_AVERAGED_EVERY = 8

#: Epochs between validations.
_MEASURED_EVERY = 5


def pretrain(
    folder: Path, out: Path, recipe: Recipe, *, device: str = "auto", precision: Any = "bf16-mixed"
) -> list[str]:
    """Pretrain VGG19 with BatchNorm; write its features and those of the plain VGG19.

    Args:
        folder: see :func:`fer2013.data.tiny_imagenet.photographs`.
        out: the folder of ``vgg19_bn.safetensors`` and ``vgg19.safetensors``.
        recipe: the settings.
        device: Lightning's accelerator.
        precision: Lightning's precision.

    Returns:
        The accuracy and the written files, in lines of text.

    Raises:
        FileNotFoundError: there are no photographs, or there is no checkpoint to start from.
        ValueError: see :func:`fit`.
    """
    lightning.seed_everything(recipe.seed, verbose=False)
    model: Any = vgg19_bn(num_classes=CLASSES)
    model.avgpool = nn.AdaptiveAvgPool2d(1)
    model.classifier = nn.Linear(512, CLASSES)
    before = _begin(model, recipe, out / "last.ckpt")
    top1 = fit(model, folder, out, recipe, device=device, precision=precision, epochs_before=before)
    model = model.cpu().float().eval()
    epochs = before + recipe.epochs
    facts = {"pretrained_on": "Tiny ImageNet", "top1": f"{top1:.4f}", "epochs": str(epochs)}
    lines = [f"top-1 on Tiny ImageNet's validation photographs: {top1:.1%}"]
    for name, part in (("vgg19_bn", model.features), ("vgg19", fused(model.features))):
        state = {f"features.{k}": v.contiguous() for k, v in part.state_dict().items()}
        path = out / f"{name}.safetensors"
        write_bytes(path, safetensors_bytes(state, metadata=facts))
        lines.append(f"wrote {path}: use it with train --weights")
    return lines


def _begin(model: nn.Module, recipe: Recipe, last: Path) -> int:
    """Load the initial weights, unless the run resumes; return their number of epochs.

    Args:
        model: the network.
        recipe: its ``start`` is the checkpoint of an earlier run.
        last: the run's own checkpoint, from which it resumes if the file exists.

    Raises:
        FileNotFoundError: there is no checkpoint to start from.
        ValueError: the checkpoint is damaged, of another network, or of an unfinished run.
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
        raise ValueError(f"expected --start as a checkpoint of pretrain, got {start}: {found}")
    seen = checkpoint["epoch"] + 1
    if seen != begun["epochs"]:
        raise ValueError(
            f"expected --start as a finished run, got {start} after {seen} of {begun['epochs']} "
            "epochs: resume it first"
        )
    model.load_state_dict(state)
    return int(seen + begun.get(EPOCHS_BEFORE, 0))


def fit(
    model: nn.Module,
    folder: Path,
    out: Path,
    recipe: Recipe,
    *,
    device: str,
    precision: Any,
    epochs_before: int = 0,
) -> float:
    """Train a classifier of Tiny ImageNet, or resume its training from ``out/last.ckpt``.

    Args:
        model: (N, 3, H, W) -> (N, 200) logits; it has the averaged weights afterwards.
        folder: see :func:`fer2013.data.tiny_imagenet.photographs`.
        out: the folder of ``last.ckpt``, written after each epoch.
        recipe: the settings.
        device: Lightning's accelerator.
        precision: Lightning's precision.
        epochs_before: number of epochs of the earlier run that the weights come from.

    Returns:
        The top-1 accuracy on the validation photographs, which were not used for selection.

    Raises:
        FileNotFoundError: there are no photographs.
        ValueError: ``out`` has a run of another recipe, or there is no whole batch.
    """
    last = out / "last.ckpt"
    if last.is_file():
        # Runs of earlier versions lack newer fields, whose defaults change nothing.
        begun = {**dataclasses.asdict(Recipe()), **read(last)["hyper_parameters"]}
        begun.pop(EPOCHS_BEFORE, None)
        if begun != dataclasses.asdict(recipe):
            raise ValueError(
                f"{out} has a run of another recipe, {begun}: use the same one to resume it, or "
                "choose another folder with --out"
            )
    train = photographs(folder, "train", limit=recipe.limit)
    val = photographs(folder, "val", limit=recipe.limit)
    if len(train[1]) < recipe.batch:
        raise ValueError(
            f"expected at least one batch of {recipe.batch} photographs, got {len(train[1])}"
        )
    task = PhotographClassifier(model, train, recipe, epochs_before=epochs_before)
    callbacks: list[lightning.Callback] = [
        ModelCheckpoint(out, "last", save_on_train_epoch_end=True, enable_version_counter=False)
    ]
    if recipe.average:
        decay = recipe.average**_AVERAGED_EVERY
        callbacks.append(EMAWeightAveraging(decay=decay, update_every_n_steps=_AVERAGED_EVERY))
    with suppress_messages():
        trainer = lightning.Trainer(
            accelerator=device,
            devices=1,
            precision=precision,
            max_epochs=recipe.epochs,
            check_val_every_n_epoch=_MEASURED_EVERY,
            reload_dataloaders_every_n_epochs=1,
            callbacks=callbacks,
            logger=False,
            num_sanity_val_steps=0,
            # Its thread takes a tenth of a core from training.
            enable_progress_bar=False,
            enable_model_summary=sys.stderr.isatty(),
            plugins=[WholeCheckpoints()],
        )
        loader = DataLoader(TensorDataset(*val), batch_size=500)
        trainer.fit(task, val_dataloaders=loader, ckpt_path=last if last.is_file() else None)
        (found,) = trainer.validate(task, loader, verbose=False)
    return float(found["top1"])


def fused(features: nn.Sequential) -> nn.Sequential:
    """Return the features of a plain VGG that equal those with BatchNorm in evaluation mode."""
    layers: list[nn.Module] = []
    for layer in features:
        if isinstance(layer, nn.BatchNorm2d):
            convolution: Any = layers.pop()
            layers.append(fuse_conv_bn_eval(convolution.eval(), layer.eval()))
        else:
            layers.append(layer)
    return nn.Sequential(*layers)
