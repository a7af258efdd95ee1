"""Read a data set in order, in batches that each belong to one shard."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..loading.faults import is_machine_fault
from ..regions.masks import Regions
from .items import Sample, Unreadable, as_sample

_LONGEST_REASON = 500


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Group:
    """Images of a batch that have the same size.

    Attributes:
        indexes: N positions in the data set.
        images: (N, C, H, W).
        pictures: (N, 1 or 3, H, W) uint8, or None.
        labels: N class ids, -1 if unknown.
        names: N names.
        regions: regions of each image, or None.
    """

    indexes: tuple[int, ...]
    images: Tensor
    pictures: Tensor | None
    labels: tuple[int, ...]
    names: tuple[str, ...]
    regions: Regions | None = None

    def __getitem__(self, some: slice) -> Group:
        """Return a slice of the images."""
        return Group(
            indexes=self.indexes[some],
            images=self.images[some],
            pictures=None if self.pictures is None else self.pictures[some],
            labels=self.labels[some],
            names=self.names[some],
            regions=None if self.regions is None else self.regions.of_images(some),
        )


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """Items of a shard that were read together; ``last`` marks the shard's last batch."""

    shard: int
    last: bool
    groups: tuple[Group, ...]
    unreadable: tuple[tuple[int, Unreadable], ...]

    def __len__(self) -> int:
        """Return the number of items, unreadable ones included."""
        return len(self.unreadable) + sum(len(group.indexes) for group in self.groups)


@dataclasses.dataclass(frozen=True)
class Cut:
    """How a data set is divided into shards, and each shard into batches."""

    shard_size: int
    batch_size: int

    def count(self, length: int) -> int:
        """Return the number of shards of a data set with ``length`` items."""
        return -(-length // self.shard_size)

    def of_shard(self, shard: int, length: int) -> list[list[int]]:
        """Return a shard's indexes, batch by batch.

        Example:
            >>> Cut(4, 3).of_shard(1, length=10)
            [[4, 5, 6], [7]]
        """
        first, end = shard * self.shard_size, min(length, (shard + 1) * self.shard_size)
        starts = range(first, end, self.batch_size)
        return [list(range(i, min(end, i + self.batch_size))) for i in starts]


def load(dataset: Any, cut: Cut, shards: Sequence[int], workers: int) -> Generator[Batch]:
    """Read some shards of a data set with one set of workers."""
    guarded = _Guarded(dataset, cut, len(dataset))
    loader: Any = DataLoader(
        guarded,
        num_workers=workers,
        # Its own generator: otherwise the workers' seed would be drawn from the global one.
        generator=torch.Generator().manual_seed(0),
        batch_sampler=_Order(cut, shards, len(dataset)),
        collate_fn=guarded.collate,
    )
    batches = iter(loader)
    try:
        yield from batches
    finally:
        # While a traceback keeps the iterator alive, torch would raise "a worker has died" again
        # in the main thread whenever another child of the process ends.
        if workers:
            batches._shutdown_workers()


class _Order(Sampler[list[int]]):
    """Yields the indexes of some shards, batch by batch, since a list would grow with the data."""

    def __init__(self, cut: Cut, shards: Sequence[int], length: int) -> None:
        self.cut, self.shards, self.length = cut, shards, length

    def __iter__(self) -> Iterator[list[int]]:
        for shard in self.shards:
            yield from self.cut.of_shard(shard, self.length)


@contextlib.contextmanager
def explain_dead_workers() -> Iterator[None]:
    """Explain the error when a process that reads images has died.

    Torch raises it from a signal handler, so it can occur anywhere in the main thread.

    Raises:
        RuntimeError: a worker died.
    """
    try:
        yield
    except (RuntimeError, ConnectionResetError, EOFError) as error:
        # The connection breaks if the worker dies while it sends a batch.
        by_dead_worker = isinstance(error, RuntimeError) and str(error).startswith(
            "DataLoader worker (pid"
        )
        connection = isinstance(error, (ConnectionResetError, EOFError))
        broken = connection and not hasattr(error, "__notes__")
        if not by_dead_worker and not broken:
            raise
        raise RuntimeError(
            f"a process that reads images died ({error}). Finished shards are kept: repeat the "
            "call to resume. If one dies again, use num_workers=0 to find the image that causes it"
        ) from error


class _Guarded(Dataset[tuple[int, Any]]):
    """A map-style data set that returns an :class:`Unreadable` for an item that raises.

    Errors of the machine, such as too many open files, are still raised, so that a later run reads
    the item again.
    """

    def __init__(self, dataset: Any, cut: Cut, length: int) -> None:
        self.dataset, self.cut, self.length = dataset, cut, length

    def __getitem__(self, index: int) -> tuple[int, Any]:
        try:
            return index, self.dataset[index]
        except Exception as error:
            if is_machine_fault(error):
                error.add_note(f"in item {index} of the data set; repeat the call to resume")
                raise
            root = getattr(self.dataset, "root", "")
            return index, Unreadable(reason_of(error, str(root)), self._name(index))

    def _name(self, index: int) -> str | None:
        name = getattr(self.dataset, "name", None)
        return str(name(index)) if callable(name) else None

    def collate(self, items: list[tuple[int, Any]]) -> Batch:
        index = items[-1][0]
        end = min(self.length, (index // self.cut.shard_size + 1) * self.cut.shard_size)
        return collated(items, index // self.cut.shard_size, last=index + 1 == end)


def collated(items: Sequence[tuple[int, Any]], shard: int, *, last: bool) -> Batch:
    """Group the items of each size, and separate unreadable items.

    Raises:
        TypeError: an item is not an image.
        ValueError: an image has a wrong shape.
    """
    unreadable: list[tuple[int, Unreadable]] = []
    alike: dict[Any, list[tuple[int, Sample]]] = {}
    for index, item in items:
        found = _checked(index, item)
        if isinstance(found, Unreadable):
            name = str(index) if found.name is None else found.name
            unreadable.append((index, Unreadable(writable(found.reason), writable(name))))
            continue
        seen = None if found.picture is None else found.picture.shape
        parts = None if found.regions is None else found.regions.names
        key = (found.image.shape, found.image.dtype, seen, parts)
        alike.setdefault(key, []).append((index, found))
    groups = tuple(_group(members) for members in alike.values())
    return Batch(shard=shard, last=last, groups=groups, unreadable=tuple(unreadable))


def _checked(index: int, item: Any) -> Sample | Unreadable:
    if isinstance(item, Unreadable):
        return item
    try:
        sample = as_sample(item)
    except (TypeError, ValueError) as error:
        error.add_note(f"in item {index} of the data set")
        raise
    if not sample.image.isfinite().all():
        return Unreadable("the image has values that are not finite", sample.name)
    return sample


def _group(members: list[tuple[int, Sample]]) -> Group:
    samples = [sample for _, sample in members]
    pictures = [s.picture for s in samples if s.picture is not None]
    masks = [s.regions for s in samples if s.regions is not None]
    return Group(
        indexes=tuple(index for index, _ in members),
        images=torch.stack([s.image.detach() for s in samples]),
        pictures=torch.stack(pictures) if pictures else None,
        labels=tuple(int(s.label) for s in samples),
        names=tuple(str(i) if s.name is None else writable(s.name) for i, s in members),
        regions=Regions(masks[0].names, torch.cat([m.masks for m in masks])) if masks else None,
    )


def reason_of(error: Exception, root: str = "") -> str:
    """Return an exception's text without parts that differ between runs.

    Args:
        error: the exception.
        root: a folder, whose path is removed from the text.

    Example:
        >>> reason_of(ValueError("data/cat/1.png is cut off, <Decoder at 0x7f12ab>"), "data")
        'ValueError: cat/1.png is cut off, <Decoder>'
    """
    text = " ".join(str(error).split())
    text = text.replace(f"{root}{os.sep}", "") if root else text
    text = re.sub(r" at 0x[0-9A-Fa-f]+", "", text)
    return f"{type(error).__name__}: {text}"[:_LONGEST_REASON]


def writable(text: str) -> str:
    """Escape what UTF-8 cannot encode, such as file names in other encodings."""
    return text.encode("utf-8", "backslashreplace").decode()
