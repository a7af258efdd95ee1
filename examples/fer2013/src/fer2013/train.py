"""Training with Lightning: it owns loops, checkpoints, resuming, precision and devices."""

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
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

import camlens

from . import history, imagenet, networks, optimization, weights
from .augmentation import augment
from .averaging import MEANINGS
from .config import CONFIGS, Config
from .data import USAGES, EpochSampler, FaceDataset, Faces
from .evaluate import evaluate
from .files import write_figure, write_json
from .networks import EmotionVGG
from .splits import Parts, divide
from .task import EmotionTask


@dataclasses.dataclass(frozen=True)
class Machine:
    """Where a run computes; the names are those of Lightning's Trainer.

    Attributes:
        device: accelerator, such as "cpu", "cuda" or "auto".
        devices: processes on this machine. The batch of a configuration is that of all together.
        num_nodes: machines.
        strategy: such as "auto" or "ddp".
        precision: such as "bf16-mixed" or "32-true".
        workers: processes that load and augment the faces, for each of the devices.
    """

    device: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: Any = "bf16-mixed"
    workers: int = 1


def train(
    config: Config,
    faces: Faces,
    *,
    out: Path,
    seed: int = 0,
    machine: Machine = Machine(),
    runs: Path = Path("runs"),
) -> Path | None:
    """Train a configuration, keep its best epoch, and measure it; resume where a run stopped.

    Args:
        config: what to train, and how.
        faces: FER2013 with the official splits that the configuration's split needs.
        out: the run's folder; if it holds a ``last.ckpt`` the run goes on from there.
        seed: of the weights, the order, the augmentation, and the deck's draw of a split.
        machine: where to compute.
        runs: the folder of the other runs, for a configuration that starts from one.

    Returns:
        The weights of the best epoch, a safetensors file in ``out``. Beside it are ``run.json``
        (configuration, seed, data, versions), ``history.csv``, ``curves.png``, ``best.ckpt`` and
        ``last.ckpt``. None in every process but the first.

    Raises:
        ValueError: ``out`` holds a run of another configuration, a split or a class is missing, or
            the batch cannot be shared by the devices.
        FileNotFoundError: the weights to start from are not there.
    """
    world = machine.devices * machine.num_nodes
    if config.batch_size % world:
        raise ValueError(
            f"expected a number of devices that divides the batch of {config.batch_size}, got "
            f"{world}"
        )
    parts = divide(faces, config.split, seed=seed)
    run = {"seed": seed, "precision": machine.precision, "data": fingerprint(parts)}
    stopped = _stopped(config, run, out)
    lightning.seed_everything(seed, workers=True, verbose=False)
    task = EmotionTask(config, run, optimization.loss(config, parts.train.labels))
    origin = {} if stopped else initialise(task.model, config, runs)
    record = {"config": dataclasses.asdict(config), **run, "versions": versions(), **origin}
    trainer, best = _trainer(config, machine, out)
    if trainer.is_global_zero and stopped is None:
        write_json(record, out / "run.json")
    trainer.fit(task, datamodule=_Feed(config, parts, seed, machine.workers), ckpt_path=stopped)
    if not trainer.is_global_zero:
        return None
    rows = pd.read_csv(out / "history.csv")
    write_figure(history.draw(rows, f"{config.name}, seed {seed}"), out / "curves.png", dpi=120)
    path = out / f"{config.name}.safetensors"
    export(config, {**run, **origin}, Path(best.best_model_path), parts, path)
    return path


def fingerprint(parts: Parts) -> str:
    """Return a digest of the faces and labels that are trained and selected on."""
    digest = hashlib.sha256()
    for faces in (parts.train, parts.validation):
        digest.update(faces.images.tobytes())
        digest.update(faces.labels.tobytes())
    return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
    """Return the versions of what decides a run's numbers."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "camlens": camlens.__version__,
    }


def initialise(model: nn.Module, config: Config, runs: Path) -> dict[str, Any]:
    """Give a network the weights that its configuration starts from.

    Args:
        model: as :func:`fer2013.networks.build` makes it.
        config: its ``weights`` are "none", "imagenet", a configuration's name, or a file: one
            that this package wrote, or torchvision's.
        runs: the folder of the other runs.

    Returns:
        What the weights are, if they are a network's of this package.

    Raises:
        FileNotFoundError: they are not there, and the message says how to get them.
        ValueError: they are damaged, or another network's.
    """
    start = config.weights
    if start == "none":
        return {}
    if start in CONFIGS:
        path = runs / start / f"{start}.safetensors"
        if not path.is_file():
            raise FileNotFoundError(
                f"{config.name!r} starts from {start!r}, and there is no {path}: run "
                f"'python -m fer2013 train {start}' first, or give --weights FILE"
            )
    elif start != "imagenet":
        path = Path(start)
        if not path.is_file():
            raise FileNotFoundError(
                f"expected the weights none, imagenet or a file, and there is no file {path}"
            )
    if isinstance(model, EmotionVGG) and (start == "imagenet" or not weights.is_ours(path)):
        imagenet.load_into(model, config.network, None if start == "imagenet" else path)
        return {}
    if start == "imagenet":
        raise ValueError("the base network has no ImageNet weights: start it with --weights none")
    facts = weights.read_facts(path)
    weights.load_into(model, path)
    return {"started_from": facts}


def _trainer(
    config: Config, machine: Machine, out: Path
) -> tuple[lightning.Trainer, ModelCheckpoint]:
    mode = "max" if config.monitor == "val_accuracy" else "min"
    best = ModelCheckpoint(out, "best", monitor=config.monitor, mode=mode)
    trainer = lightning.Trainer(
        accelerator=machine.device,
        devices=machine.devices,
        num_nodes=machine.num_nodes,
        strategy=machine.strategy,
        precision=machine.precision,
        max_epochs=config.epochs,
        callbacks=[
            history.History(out / "history.csv", config.epochs),
            best,
            # save_last would save only together with a best one: a stopped run would lose more.
            ModelCheckpoint(out, "last", enable_version_counter=False),
            EarlyStopping(config.monitor, patience=config.patience, mode=mode),
            *([EMAWeightAveraging(decay=config.average)] if config.average else []),
        ],
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=sys.stderr.isatty(),
        enable_model_summary=sys.stderr.isatty(),
        # EpochSampler shares the faces out.
        use_distributed_sampler=False,
    )
    return trainer, best


class _Feed(lightning.LightningDataModule):
    """The faces of a run, shared out among its processes."""

    def __init__(self, config: Config, parts: Parts, seed: int, workers: int) -> None:
        super().__init__()
        self.batch_size = config.batch_size
        self.train = FaceDataset(parts.train, augment(config.augmentation), seed=seed)
        self.validation = FaceDataset(parts.validation)
        self.seed = seed
        self.workers = workers

    def train_dataloader(self) -> DataLoader[Any]:
        """Return one process's part of each batch."""
        return DataLoader(
            self.train,
            self.batch_size // self._world()["world"],
            sampler=EpochSampler(len(self.train), shuffle=True, seed=self.seed, **self._world()),
            drop_last=True,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Return one process's share."""
        sampler = EpochSampler(len(self.validation), shuffle=False, **self._world())
        return DataLoader(self.validation, 256, sampler=sampler)

    def _world(self) -> dict[str, int]:
        trainer: Any = self.trainer
        return {"rank": trainer.global_rank, "world": trainer.world_size}


def _stopped(config: Config, run: dict[str, Any], out: Path) -> Path | None:
    """Return the checkpoint from which a run goes on, if it is one of the same configuration."""
    path = out / "last.ckpt"
    if not path.is_file():
        return None
    # weights_only: a pickle that would run code is refused.
    started = torch.load(path, map_location="cpu", weights_only=True)["hyper_parameters"]
    wanted = {**dataclasses.asdict(config), **run}
    if changed := [k for k in wanted if started.get(k) != wanted[k]]:
        raise ValueError(
            f"{out} holds a run with other values of {', '.join(changed)}: go on with the same "
            "ones, or train into another folder with --out"
        )
    return path


def export(config: Config, run: dict[str, Any], checkpoint: Path, parts: Parts, path: Path) -> None:
    """Write a checkpoint's network with what is known of it, measured on the file's own weights."""
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    prefix = "model."
    state = {
        k.removeprefix(prefix): v for k, v in saved["state_dict"].items() if k.startswith(prefix)
    }
    model = networks.build(config)
    model.load_state_dict(weights.compact(state))
    crop = config.augmentation.crop
    measured = evaluate(model, parts.validation, averaging=config.averaging, crop=crop)
    usage = USAGES[int(parts.validation.usages[0])]
    selected = usage if config.split == "standard" else "a fifth of Training"
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
        "versions": versions(),
    }
    weights.save(state, facts, path)
