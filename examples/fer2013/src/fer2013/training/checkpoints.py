"""Checkpoints that are written whole, read without executing code, and may be moved."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from ..configurations.config import Config
from ..files import write_whole

#: What ``run.json`` says of the weights that a run began with.
ORIGIN = ("started_from", "weights_sha256", "pretrained_on")


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it into it.

    Lightning's own writing goes through the folder for temporary files; where that is another
    disk, a full one leaves half a checkpoint in the place of the last good one.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            OSError: it cannot be written; the one that was there before is unchanged.
        """
        del storage_options
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        try:
            write_whole(Path(path), buffer.getbuffer())
        except OSError as error:
            raise OSError(
                error.errno or errno.EIO,
                f"cannot write {path} ({error.strerror}); what was saved before it is unharmed: "
                "mend that, and the same command goes on from there",
            ) from error

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Return a checkpoint; see :func:`read`."""
        return read(Path(path))


def read(path: Path) -> dict[str, Any]:
    """Return a checkpoint, in main memory.

    The paths in it are those of where it is now: a run's folder may have been moved.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a whole checkpoint, or would execute code.
    """
    try:
        # weights_only: a pickle that would run code is refused.
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        callbacks, *_ = (checkpoint[key] for key in ("callbacks", "hyper_parameters", "epoch"))
    except FileNotFoundError:
        raise
    except (
        *(OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError),
        *(pickle.UnpicklingError, zipfile.BadZipFile),
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise ValueError(
            f"{path} is not a whole checkpoint of a training run ({reason}). Remove it to start "
            "the run again, or put a copy of best.ckpt in its place to go on from the best epoch."
        ) from error
    folder = os.path.realpath(path.parent)
    for state in callbacks.values():
        if state.get("dirpath", folder) != folder:
            _move(state, folder)
    return checkpoint


def _move(state: dict[str, Any], folder: str) -> None:
    """Change the paths of a ModelCheckpoint's state."""

    def moved(path: str) -> str:
        return str(Path(folder) / Path(path).name) if path else ""

    state["dirpath"] = folder
    for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[name] = moved(state[name])
    state["best_k_models"] = {moved(k): v for k, v in state["best_k_models"].items()}


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a run's folder holds already.

    Attributes:
        checkpoint: where to go on from.
        epochs: how many were completed.
        weights: the finished run's file.
        origin: what is known of the weights it began with, as ``run.json`` says.
    """

    checkpoint: Path | None = None
    epochs: int = 0
    weights: Path | None = None
    origin: dict[str, Any] = dataclasses.field(default_factory=dict)


def read_progress(config: Config, run: Mapping[str, Any], out: Path) -> Progress:
    """Return what a folder holds of a run.

    Args:
        config: the run's configuration.
        run: what else decides its numbers: seed, precision, data.
        out: the folder, which need not be there.

    Raises:
        ValueError: it holds another run, or the run's checkpoint is damaged.
    """
    record, last = out / "run.json", out / "last.ckpt"
    made = out / f"{config.name}.safetensors"
    trained = sorted([*out.glob("*.ckpt"), *out.glob("*.safetensors")])
    recorded = _read_record(record) if record.is_file() and trained else {}
    if not recorded and not last.is_file():
        return Progress()
    saved = read(last) if last.is_file() else None
    values = saved["hyper_parameters"] if saved else {**recorded["config"], **recorded}
    # A run of an earlier version lacks what has come since, which it then did not change.
    values = {**dataclasses.asdict(Config(config.name)), **values}
    wanted = {**dataclasses.asdict(config), **run}
    if changed := [k for k in wanted if _as_json(values.get(k)) != _as_json(wanted[k])]:
        raise ValueError(
            f"{out} holds a run with other values of {', '.join(changed)}: go on with the same "
            "ones, or train into another folder with --out"
        )
    return Progress(
        checkpoint=last if saved else None,
        epochs=saved["epoch"] + 1 if saved else 0,
        weights=made if made.is_file() else None,
        origin={k: v for k, v in recorded.items() if k in ORIGIN},
    )


def _as_json(value: Any) -> Any:
    """Return a value as a record has it: a tuple is a list there."""
    return json.loads(json.dumps(value))


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        {**record["config"], "seed": record["seed"]}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} does not hold a run ({error!r}): remove it, or train into another folder "
            "with --out"
        ) from error
    return record
