"""A whole data set, explained shard by shard: on this machine, on ranks, on Ray's actors."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Sequence
from typing import Any

from torch import Tensor

from ..explainers import Explainer
from ..targets import Targets
from .questions import RegionsOf
from .runs import Run
from .shards import clear_parts
from .tasks import ShardTask


def explain_dataset(
    explainer: Explainer | Sequence[Explainer],
    dataset: Any,
    out: str | os.PathLike[str],
    *,
    regions: RegionsOf | None = None,
    targets: Targets = None,
    infill: str | None = None,
    activation: str = "softmax",
    classes: Sequence[str] | None = None,
    picture: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 32,
    num_workers: int = 0,
    concurrent_batches: int = 1,
    shard_size: int = 256,
    heatmaps: str = "uint8",
    part: tuple[int, int] | None = None,
    progress: bool = True,
) -> Run:
    """Explain a data set and write heatmaps, scores and region rows to a folder.

    The data set is cut into shards, each written atomically. If the call is killed, the disk is
    full or a worker dies, repeating the call resumes after the last finished shard, and the result
    is byte for byte that of an undisturbed call. Memory does not grow with the data set.

    Under ``torchrun`` each rank does every so many-th shard (``RANK`` and ``WORLD_SIZE`` in the
    environment, no process group); the last to end completes the manifest. For Ray see
    :func:`explain_with_ray`.

    Args:
        explainer: such as ``camlens.GradCAM(model)``, or several of one model, each with a forward
            pass of its own.
        dataset: map-style or iterable. Its items are images (C, H, W) as the model takes them,
            pairs of image and label, or :class:`Sample`; see :class:`Folder` for image files. It
            must give the same items each time. An item that raises when it is read, that is
            :class:`Unreadable`, has values that are not finite, or cannot be explained (the model
            fails on it, its score is NaN) is listed with the reason. What is the machine's fault,
            such as too little memory or a broken connection, ends the run. Sizes
            may be mixed: a batch is explained one size at a time. An iterable one is read from its
            start each time; an exception of it ends the run.
        out: the run's folder, new, empty, or of this run.
        regions: for all images, resized to theirs; or a function from pictures
            (N, 1 or 3, H, W), floating point in [0, 1], to the regions of each, such as a face
            detector's.
        targets: what to explain. None: the predicted class. ``"label"``: each image's own class.
            ``"all"``, a class, a callable: as an explainer takes them. (M,) or (M, K) classes:
            row i of item i.
        infill: also measure how far the scores fall without each region, see
            :func:`camlens.faithfulness.ablate_regions` (1 + 5 R forward passes per image with R
            regions); its ``seed`` is the index of the first image of the batch.
        activation: turns the model's outputs into the probabilities of the tables, see
            :func:`camlens.targets.probabilities`: ``"softmax"``, ``"sigmoid"`` (multi-label) or
            ``"none"`` (outputs are probabilities).
        classes: the classes' names, by id, for the table of regions.
        picture: from images (N, C, H, W) as the model takes them to what is shown of them,
            (N, 1 or 3, H, W) in [0, 1] or uint8: it undoes the normalisation. A sample's own
            picture comes first. Without both, images in [0, 1] are shown as they are, others
            stretched from their minimum to their maximum. It is given images in main memory.
        batch_size: images an explainer takes at once; also what ``infill`` runs at once.
        num_workers: processes that read images while others are explained; 0 reads them in
            between. At most 1 of an iterable data set.
        concurrent_batches: batches that are explained at the same time, each with an equal part of
            torch's threads. On a CPU 2 take less time than 1 (docs, Benchmarks), also since they
            are read and written beside that; a model that keeps something of a call in itself
            must not be given 2. ``targets`` that are a callable are called by several threads.
        shard_size: images a shard. What is lost when the call is killed is at most the shards
            that are being made.
        heatmaps: how heat is kept: ``"uint8"``, 256 steps of each map's maximum, or
            ``"float16"``.
        part: (rank, number of ranks), where the environment does not say it, or is not to.
        progress: whether to show images done, rate and remaining time, on a terminal.

    Returns:
        The run; complete, unless other ranks are not done.

    Raises:
        LookupError, TypeError, ValueError: an argument is wrong; the folder holds another run,
            which may differ in anything that decides numbers, or something else; the data set is
            empty; or as the explainers, scores and ablations raise them, with the images' names.
        OSError: the folder cannot be written to, the disk is full, or the machine fails to read.
        MemoryError: there is too little for an item.
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
    task = ShardTask(
        explainer=explainer,
        dataset=dataset,
        out=out,
        regions=regions,
        targets=targets,
        infill=infill,
        activation=activation,
        classes=classes,
        picture=picture,
        batch_size=batch_size,
        num_workers=num_workers,
        concurrent_batches=concurrent_batches,
        shard_size=shard_size,
        heatmaps=heatmaps,
    )
    rank, ranks = _part(part)
    manifest = task.start()
    clear_parts(task.path)
    there = task.done()
    if not task.mapped:
        if manifest["complete"] and len(manifest["shards"]) == len(there):
            return Run(task.path)
        with _bar(progress, None, 0) as bar:
            items = task.run_stream(_PassedOver(there, rank, ranks), progress=bar.update)
        return task.finish(items)
    own = range(rank, task.shards, ranks)
    missing = [shard for shard in own if shard not in there]
    sizes = {shard: min(shard_size, len(dataset) - shard * shard_size) for shard in own}
    total = sum(sizes.values())
    with _bar(progress, total, total - sum(sizes[shard] for shard in missing)) as bar:
        task.run(missing, progress=bar.update)
    return task.finish()


def explain_with_ray(task: ShardTask, *, actors: int = 2, gpus: float = 0) -> Run:
    """Do a task's shards by actors of Ray Data, on as many machines as Ray has.

    Ray maps over the numbers of the shards that are not there. The run's folder and what the data
    set reads must be the same on all machines. Ray starts an actor that died anew and has it do
    its shard again.

    Args:
        task: of a map-style data set; the model goes to each actor as it is.
        actors: how many.
        gpus: how many, or what part of one, each actor has to itself.

    Returns:
        The run.

    Raises:
        ImportError: Ray is not installed.
        ValueError: the data set is iterable; or as :func:`explain_dataset` raises it.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError(f'Ray is needed: pip install "camlens[ray]" ({error})') from error
    task.start()
    clear_parts(task.path)
    there = task.done()
    missing = [shard for shard in range(task.shards) if shard not in there]
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
    """What a process of Ray holds: the task, sent once."""

    def __init__(self, task: ShardTask) -> None:
        self.task = task

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        self.task.run([int(shard) for shard in batch["shard"]])
        return batch


class _PassedOver(Container[int]):
    """The shards that are done, or another rank's."""

    def __init__(self, done: set[int], rank: int, ranks: int) -> None:
        self.done, self.rank, self.ranks = done, rank, ranks

    def __contains__(self, shard: object) -> bool:
        return not isinstance(shard, int) or shard in self.done or shard % self.ranks != self.rank


def _part(part: tuple[int, int] | None) -> tuple[int, int]:
    if part is None:
        part = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    rank, ranks = part
    if not 0 <= rank < ranks:
        raise ValueError(
            f"expected part as (rank, number of ranks) with 0 <= rank < number, got {part}"
        )
    return rank, ranks


def _bar(progress: bool, total: int | None, done: int) -> Any:
    from tqdm import tqdm

    # None: only on a terminal.
    return tqdm(total=total, initial=done, unit="image", disable=None if progress else True)
