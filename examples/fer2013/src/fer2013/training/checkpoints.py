"""Checkpoints: written atomically, read without executing code, valid after a folder is moved."""

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
from ..files import write_bytes

#: Keys of ``run.json`` that describe the initial weights.
ORIGIN = ("started_from", "weights_sha256", "pretrained_on")


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file in the same folder and renames it.

    Lightning writes to the system's folder for temporary files first. If that is on another disk, a
    full disk leaves half a checkpoint in place of the previous one.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            OSError: writing failed; the previous checkpoint is unchanged.
        """
        del storage_options
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        try:
            write_bytes(Path(path), buffer.getbuffer())
        except OSError as error:
            raise OSError(
                error.errno or errno.EIO,
                f"cannot write {path} ({error.strerror or error}); the previous checkpoint is "
                "unchanged: fix the cause and run the same command to resume",
            ) from error

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Return a checkpoint; see :func:`read`."""
        return read(Path(path))


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU, and replace paths of its callbacks by its current folder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, not a checkpoint, or would execute code.
    """
    try:
        # weights_only refuses a pickle that would run code.
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
            f"{path} is not a complete checkpoint of a training run ({reason}). Remove it to start "
            "the run again, or replace it by a copy of best.ckpt to resume from the best epoch."
        ) from error
    folder = os.path.realpath(path.parent)
    for state in callbacks.values():
        if state.get("dirpath", folder) != folder:
            _move(state, folder)
    return checkpoint


def _move(state: dict[str, Any], folder: str) -> None:
    """Replace the folder in the paths of a ModelCheckpoint's state."""

    def moved(path: str) -> str:
        return str(Path(folder) / Path(path).name) if path else ""

    state["dirpath"] = folder
    for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[name] = moved(state[name])
    state["best_k_models"] = {moved(k): v for k, v in state["best_k_models"].items()}


@dataclasses.dataclass(frozen=True)
class Progress:
    """The state of a run's folder.

    Attributes:
        checkpoint: the checkpoint to resume from.
        epochs: number of completed epochs.
        weights: weights file of a finished run.
        origin: ``run.json``'s description of the initial weights.
    """

    checkpoint: Path | None = None
    epochs: int = 0
    weights: Path | None = None
    origin: dict[str, Any] = dataclasses.field(default_factory=dict)


def read_progress(config: Config, run: Mapping[str, Any], out: Path) -> Progress:
    """Return how far a run has come.

    Args:
        config: the run's configuration.
        run: the run's other settings: seed, precision, data.
        out: the run's folder, which need not exist.

    Raises:
        ValueError: the folder belongs to a run with other settings, or the checkpoint is damaged.
    """
    record, last = out / "run.json", out / "last.ckpt"
    made = out / f"{config.name}.safetensors"
    trained = [*out.glob("*.ckpt"), *out.glob("*.safetensors")]
    recorded = _read_record(record) if record.is_file() and trained else {}
    if not recorded and not last.is_file():
        return Progress()
    saved = read(last) if last.is_file() else None
    values = saved["hyper_parameters"] if saved else {**recorded["config"], **recorded}
    # Runs of earlier versions lack newer fields, whose defaults change nothing.
    values = {**dataclasses.asdict(Config(config.name)), **values}
    wanted = {**dataclasses.asdict(config), **run}
    if changed := [k for k in wanted if _as_json(values.get(k)) != _as_json(wanted[k])]:
        raise ValueError(
            f"{out} has a run with other values of {', '.join(changed)}: use the same values to "
            "resume it, or choose another folder with --out"
        )
    return Progress(
        checkpoint=last if saved else None,
        epochs=saved["epoch"] + 1 if saved else 0,
        weights=made if made.is_file() else None,
        origin={k: v for k, v in recorded.items() if k in ORIGIN},
    )


def _as_json(value: Any) -> Any:
    """Return a value as JSON represents it, with lists for tuples."""
    return json.loads(json.dumps(value))


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        {**record["config"], "seed": record["seed"]}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not the record of a run ({error!r}): remove it, or choose another folder "
            "with --out"
        ) from error
    return record
