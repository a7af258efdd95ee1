"""Explain a whole data set in one process, on several ranks, or with Ray's actors."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from ..explainers.base import Explainer
from .options import RunOptions
from .run import Run
from .task import DEFAULTS, ShardTask


def explain_dataset(
    explainer: Explainer | Sequence[Explainer],
    dataset: Any,
    out: str | os.PathLike[str],
    options: RunOptions = DEFAULTS,
    *,
    part: tuple[int, int] | None = None,
    progress: bool = True,
    **changes: Any,
) -> Run:
    """Explain a data set and write heatmaps, scores and region rows to a folder.

    The data set is divided into shards, each written atomically. If the call is killed, the disk is
    full or a worker dies, repeating the call resumes after the last finished shard. The result is
    byte for byte that of an uninterrupted call. Memory use does not grow with the data set.

    With ``metrics=`` the maps are also evaluated: ``run.evaluation`` is the result of
    :func:`camlens.faithfulness.evaluate`.

    Under ``torchrun``, rank r of n processes shards r, r + n, r + 2n, ... (it reads ``RANK`` and
    ``WORLD_SIZE`` from the environment and needs no process group); the last rank to finish
    completes the manifest. For Ray see :func:`explain_with_ray`.

    The calling thread reads images and calls the functions in the options. A second thread writes.
    On an accelerator, a third thread runs the model, in the caller's modes; on a CPU the model uses
    all cores and runs on the calling thread.

    Args:
        explainer: an explainer such as ``camlens.GradCAM(model)``, or several of one model, each
            with its own forward pass.
        dataset: a map-style data set, with ``__getitem__`` and ``__len__``. Its items are images
            (C, H, W) as the model takes them, pairs of image and label, or :class:`Sample`; see
            :class:`Folder` for image files. It must return the same items each time. An item is
            listed with the reason if reading it raises, if it is :class:`Unreadable`, if its values
            are not finite, or if it cannot be explained (the model fails on it, or its score is
            NaN). Errors of the machine, such as too little memory or a broken connection, end the
            run. Sizes may be mixed: a batch is explained one size at a time.
        out: the run's folder: new, empty, or the folder of this run.
        options: what to explain in each image, and how to run: batches, shards, workers.
        part: (rank, number of ranks); overrides ``RANK`` and ``WORLD_SIZE``.
        progress: whether to show the number of images, the rate and the remaining time on a
            terminal.
        changes: options by name, which replace those in ``options``: ``shard_size=64`` is short for
            ``RunOptions(shard_size=64)``.

    Returns:
        The run; incomplete if other ranks have not finished.

    Raises:
        LookupError, TypeError, ValueError: an argument is wrong; the folder contains other files or
            a run that differs in anything that affects the results; the data set is empty; or an
            explainer, score or ablation raises it, with a note that names the images.
        OSError: the folder cannot be written to, the disk is full, or the machine fails to read.
        MemoryError: there is too little memory for an item.
        RuntimeError: a process that reads images died.

    Example:
        >>> import camlens, tempfile, torch
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 2)
        ... ).eval()
        >>> images = [(torch.rand(3, 8, 8), i % 2) for i in range(5)]
        >>> with tempfile.TemporaryDirectory() as out:
        ...     run = explain_dataset(camlens.GradCAM(net, "0"), images, out, shard_size=2)
        ...     run.manifest["shards"], run.heatmaps(run.maps).shape
        (['shard-00000', 'shard-00001', 'shard-00002'], torch.Size([5, 8, 8]))
    """
    options = dataclasses.replace(options, **changes)
    task = ShardTask(explainer, dataset, out, options)
    rank, ranks = _part(part)
    finished = task.start()
    assigned = range(rank, task.shards, ranks)
    missing = [shard for shard in assigned if shard not in finished]
    size, items = options.shard_size, len(dataset)
    sizes = {shard: min(size, items - shard * size) for shard in assigned}
    done = sum(sizes.values()) - sum(sizes[shard] for shard in missing)
    with _bar(progress, sum(sizes.values()), done) as bar:
        task.run(missing, progress=bar.update)
    return task.finish()


def explain_with_ray(task: ShardTask, *, actors: int = 2, gpus: float = 0) -> Run:
    """Process a task's shards with actors of Ray Data, on all machines of the Ray cluster.

    Ray maps over the numbers of the missing shards. All machines must see the same run folder and
    the same files of the data set. If an actor dies, Ray restarts it and repeats its shard.

    Args:
        task: the task; its model is sent to each actor.
        actors: number of actors.
        gpus: number of GPUs for each actor, which may be a fraction.

    Returns:
        The run.

    Raises:
        ImportError: Ray is not installed.
        LookupError, OSError, TypeError, ValueError: see :func:`explain_dataset`.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError(f'Ray is needed: pip install "camlens[ray]" ({error})') from error
    finished = task.start()
    missing = [shard for shard in range(task.shards) if shard not in finished]
    if missing:
        ray.data.from_items([{"shard": shard} for shard in missing]).map_batches(
            _Actor,
            fn_constructor_args=(task,),
            batch_size=1,
            concurrency=actors,
            num_gpus=gpus,
        ).materialize()
    return task.finish()


class _Actor:
    """A Ray actor, which receives the task once."""

    def __init__(self, task: ShardTask) -> None:
        self.task = task

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        self.task.run([int(shard) for shard in batch["shard"]])
        return batch


def _part(part: tuple[int, int] | None) -> tuple[int, int]:
    if part is None:
        part = _number("RANK", 0), _number("WORLD_SIZE", 1)
    rank, ranks = part
    if not 0 <= rank < ranks:
        raise ValueError(
            f"expected part as (rank, number of ranks) with 0 <= rank < number, got {part}"
        )
    return rank, ranks


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, str(default))
    try:
        return int(text)
    except ValueError:
        raise ValueError(
            f"expected the environment variable {variable} as a number, got {text!r}"
        ) from None


def _bar(progress: bool, total: int, done: int) -> Any:
    from tqdm import tqdm

    # None: only on a terminal.
    return tqdm(total=total, initial=done, unit="image", disable=None if progress else True)
