"""Train a configuration with Lightning, from the data to the weights file; resume stopped runs."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
import sys
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint

import camlens

from ..configurations.config import Config
from ..data.faces import SIDE, USAGES, Faces
from ..data.splits import Parts, divide
from ..evaluation.accuracy import evaluate
from ..evaluation.predictions import MEANINGS
from ..files import sha256, write_figure, write_json
from ..networks import architectures, weights
from . import history, optimization
from .batches import FaceDataModule
from .checkpoints import Progress, WholeCheckpoints, read, read_progress
from .initial_weights import continues, initialise
from .lightning_messages import suppress_messages
from .lightning_module import EmotionClassifier


@dataclasses.dataclass(frozen=True)
class Machine:
    """The hardware of a run, in the terms of Lightning's Trainer.

    Attributes:
        device: accelerator, such as "cpu", "cuda" or "auto".
        devices: processes on this machine; a configuration's batch is divided among all processes.
        num_nodes: number of machines.
        strategy: such as "auto" or "ddp".
        precision: such as "bf16-mixed" or "32-true".
    """

    device: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: Any = "bf16-mixed"


def train(
    config: Config, faces: Faces, *, out: Path, seed: int = 0, machine: Machine = Machine()
) -> Path | None:
    """Train a configuration, or resume its training, and measure its best epoch.

    Args:
        config: the configuration.
        faces: FER2013, with the official splits that the configuration's split needs.
        out: the run's folder; if it has a ``last.ckpt``, the run resumes from there.
        seed: seed of the weights, the order, the augmentation, and the deck's split.
        machine: the hardware.

    Returns:
        The weights of the best epoch, a safetensors file in ``out``; None in all processes but the
        first. ``out`` also gets ``run.json`` (configuration, seed, data, versions),
        ``history.csv``, ``curves.png``, ``metrics.json`` (of the best epoch), ``best.ckpt`` and
        ``last.ckpt``.

    Raises:
        ValueError: ``out`` has a run with other settings, a split or a class is missing, or the
            batch cannot be divided among the devices.
        FileNotFoundError: the initial weights do not exist.
    """
    parts = divide(faces, config.split, seed=seed)
    _check(config, parts, machine)
    run = {"seed": seed, "precision": machine.precision, "data": fingerprint(parts)}
    if config.distillation:
        run["teacher_sha256"] = sha256(weights.SHIPPED)
    if faces.index:
        run["index"] = faces.index
    before = read_progress(config, run, out)
    if before.weights is not None:
        return before.weights
    lightning.seed_everything(seed, workers=True, verbose=False)
    loss = optimization.loss(config, parts.train.labels)
    continued = "started_from" in before.origin or continues(config)
    classifier = EmotionClassifier(config, run, loss, continued=continued)
    resumed = before.checkpoint is not None
    origin = before.origin if resumed else initialise(classifier.model, config)
    batches = FaceDataModule(config, parts, seed=seed, epoch=before.epochs)
    with suppress_messages():
        trainer, best = _trainer(config, machine, out)
        if trainer.is_global_zero:
            _prepare(out, {"config": dataclasses.asdict(config), **run, **origin}, before)
        trainer.fit(classifier, datamodule=batches, ckpt_path=before.checkpoint)
    if not trainer.is_global_zero:
        return None
    rows = pd.read_csv(out / "history.csv")
    write_figure(history.draw(rows, f"{config.name}, seed {seed}"), out / "curves.png", dpi=120)
    path = out / f"{config.name}.safetensors"
    last = {name: float(rows[name].iloc[-1]) for name in history.COLUMNS}
    facts = {**run, **origin, "epochs_trained": len(rows), "last_epoch": last}
    _export(config, facts, Path(best.best_model_path), parts, path)
    return path


def _check(config: Config, parts: Parts, machine: Machine) -> None:
    if config.network == "base" and config.side != SIDE:
        raise ValueError(
            f"the base network needs images of {SIDE} pixels, got --side {config.side}"
        )
    if config.distillation and config.split != "standard":
        raise ValueError(
            "the base network, the teacher of distillation, was trained on all of Training: "
            f"expected the split 'standard', got {config.split!r}, which validates on Training"
        )
    world = machine.devices * machine.num_nodes
    if config.batch_size % world:
        raise ValueError(
            f"expected a number of devices that divides the batch of {config.batch_size}, got "
            f"{world}"
        )
    if len(parts.train) < config.batch_size:
        raise ValueError(
            f"expected at least one batch of {config.batch_size} training images, got "
            f"{len(parts.train)}: is this the whole of FER2013?"
        )
    if len(parts.validation) < world:
        raise ValueError(
            f"expected at least one validation image for each of {world} devices, got "
            f"{len(parts.validation)}"
        )


def _prepare(out: Path, record: dict[str, Any], before: Progress) -> None:
    """Write the record of a new run, or print where a stopped one resumes."""
    for part in out.glob(".*.ckpt.*.part"):  # of a killed process, each as large as a checkpoint
        part.unlink()
    if before.checkpoint is None or not (out / "run.json").is_file():
        write_json({**record, "versions": _versions()}, out / "run.json")
    if before.checkpoint is not None:
        print(f"resuming from {before.checkpoint} after epoch {before.epochs}", flush=True)


def fingerprint(parts: Parts) -> str:
    """Return a digest of the training and validation images and labels."""
    digest = hashlib.sha256()
    for faces in (parts.train, parts.validation):
        digest.update(faces.images.tobytes())
        digest.update(faces.labels.tobytes())
    return digest.hexdigest()[:16]


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "camlens": camlens.__version__,
    }


def _trainer(
    config: Config, machine: Machine, out: Path
) -> tuple[lightning.Trainer, ModelCheckpoint]:
    mode = "max" if config.monitor == "val_accuracy" else "min"
    # Without a version in its name, the checkpoint of a run killed in its first epoch is replaced.
    best = ModelCheckpoint(
        out, "best", monitor=config.monitor, mode=mode, enable_version_counter=False
    )
    callbacks = [
        history.History(out / "history.csv", config.epochs),
        best,
        # save_last would only save when the best epoch is saved, so a stopped run would lose more.
        ModelCheckpoint(out, "last", enable_version_counter=False),
        # check_finite would end a diverged run as if it were finished; History raises an error.
        EarlyStopping(config.monitor, patience=config.patience, mode=mode, check_finite=False),
        *([EMAWeightAveraging(decay=config.average)] if config.average else []),
    ]
    try:
        trainer = lightning.Trainer(
            accelerator=machine.device,
            devices=machine.devices,
            num_nodes=machine.num_nodes,
            strategy=machine.strategy,
            precision=machine.precision,
            max_epochs=config.epochs,
            callbacks=callbacks,
            logger=False,
            num_sanity_val_steps=0,
            enable_progress_bar=sys.stderr.isatty(),
            enable_model_summary=sys.stderr.isatty(),
            use_distributed_sampler=False,  # EpochSampler divides the images
            plugins=[WholeCheckpoints()],
        )
    except MisconfigurationException as error:
        raise ValueError(
            f"this machine has no such accelerator, devices, strategy or precision: {error}"
        ) from error
    return trainer, best


def _export(config: Config, run: dict[str, Any], best: Path, parts: Parts, path: Path) -> None:
    """Write the best epoch's weights, with the accuracy of the weights as they are stored."""
    saved = read(best)
    prefix = "model."
    state = {
        k.removeprefix(prefix): v for k, v in saved["state_dict"].items() if k.startswith(prefix)
    }
    model = architectures.build(config)
    model.load_state_dict(weights.compact(state))
    crop = config.augmentation.crop
    measured = evaluate(model, parts.validation, averaging=config.averaging, crop=crop)
    usage = USAGES[int(parts.validation.usages[0])]
    selected = usage if config.split == "standard" else "a fifth of Training"
    # Records and the comparison rely on these words.
    facts = {
        "network": config.network,
        "config": dataclasses.asdict(config),
        **run,
        "best_epoch": saved["epoch"] + 1,
        "trained_on": f"FER2013 Training, {len(parts.train)} faces",
        "selected_on": f"FER2013 {selected}, {len(parts.validation)} faces",
        "accuracy": measured.accuracy,
        "accuracy_on": f"{selected}, on which the epoch was selected",
        "averaging": MEANINGS[config.averaging],
        "report": measured.report,
        "versions": _versions(),
    }
    write_json(facts, path.with_name("metrics.json"))
    weights.save(state, facts, path)
