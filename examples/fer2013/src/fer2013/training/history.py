"""Metrics of each epoch: kept in the checkpoints, written as CSV, and plotted."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
from matplotlib.figure import Figure

from ..files import write_csv

COLUMNS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


class History(lightning.Callback):
    """Records and prints the metrics of each epoch.

    They are part of the checkpoint, so a resumed run keeps its earlier epochs. ``rate`` is the
    head's learning rate in the next step; ``seconds`` includes validation and saving.

    Args:
        path: the CSV file, rewritten after each epoch.
        epochs: maximum number of epochs.
    """

    def __init__(self, path: Path, epochs: int) -> None:
        self.path = path
        self.epochs = epochs
        self.rows: list[dict[str, float]] = []
        self._start = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Return the epochs so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the epochs of a resumed run."""
        self.rows = state_dict["rows"]

    def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Start the clock: Lightning does not announce a resumed run's first epoch."""
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Record and print an epoch.

        Raises:
            ValueError: a loss is not finite.
        """
        measured = trainer.callback_metrics
        row = {
            "epoch": trainer.current_epoch + 1,
            **{name: measured[name].item() for name in COLUMNS},
            "rate": trainer.optimizers[0].param_groups[-1]["lr"],
            "seconds": time.monotonic() - self._start,
        }
        self._start = time.monotonic()
        for part, name in (("training", "train_loss"), ("validation", "val_loss")):
            if not math.isfinite(row[name]):
                raise ValueError(
                    f"the {part} loss of epoch {row['epoch']} is {row[name]}: the run has "
                    "diverged; earlier checkpoints are kept. Try a higher precision (--precision "
                    "32-true) or another --seed, in another folder with --out"
                )
        self.rows.append(row)
        if trainer.is_global_zero:
            write_csv(pd.DataFrame(self.rows), self.path)
            print(
                f"epoch {row['epoch']} of {self.epochs}: train loss {row['train_loss']:.3f}, "
                f"accuracy {row['train_accuracy']:.2%}; validation loss {row['val_loss']:.3f}, "
                f"accuracy {row['val_accuracy']:.2%}; {row['seconds']:.0f} s",
                flush=True,
            )


def draw(history: pd.DataFrame, title: str) -> Figure:
    """Plot accuracy and loss by epoch, for training and validation."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    figure.suptitle(title)
    for axes, what in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        for part, name in (("train", "training, augmented"), ("val", "validation")):
            axes.plot(history["epoch"], history[f"{part}_{what}"], label=name)
        axes.set(xlabel="epoch", ylabel=what)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure
