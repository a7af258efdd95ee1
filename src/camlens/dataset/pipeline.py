"""The way of a batch: its pictures and regions, explained, kept in its shard, the shard written."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

from torch import Tensor

from ..regions.masks import Regions
from .background import Background, side_by_side
from .explaining import device_of, explain_group
from .keeping import Explained
from .loading import Batch, End, Group
from .questions import Questions, regions_of
from .shards import write_shard
from .tables import Shard
from .thumbnails import pictures_of

#: Groups of images and shards that may wait to be kept and written.
_WAITING = 4


def work_through(
    batches: Iterable[Batch | End],
    asked: Questions,
    run: Path,
    *,
    concurrent_batches: int,
    progress: Callable[[int], object] | None,
) -> End | None:
    """Explain batches and write their shards.

    This thread reads and calls what users gave to find pictures and regions; threads beside it
    explain, if several batches are to be explained at once; one thread keeps what was found, in
    order, and writes.

    Args:
        batches: of whole shards, in order.
        asked: what is asked of each image.
        run: the run's folder.
        concurrent_batches: how many are explained at once.
        progress: told the number of images of each batch, when it is kept, by another thread.

    Returns:
        The end of an iterable data set, where it was reached.

    Raises:
        LookupError, TypeError, ValueError: as the explainers, scores and ablations raise them.
        OSError: a shard cannot be written.
    """
    scored = asked.regions is not None
    shard = Shard(asked.classes)
    with (
        Background(_WAITING + concurrent_batches) as background,
        side_by_side(concurrent_batches, device_of(asked.explainers[0]).type) as pool,
    ):
        for batch in batches:
            if isinstance(batch, End):
                return batch
            for index, item in batch.unreadable:
                shard.leave_out(index, item)
            for group in batch.groups:
                with _named(group.names):
                    seen, own = _seen(group, asked)
                found = pool.submit(_explained, group, seen, own, asked)
                background.submit(functools.partial(_add, shard, found))
            if batch.last:
                background.submit(
                    functools.partial(write_shard, run, batch.shard, shard, regions=scored)
                )
                shard = Shard(asked.classes)
            if progress is not None:  # behind what it is about
                background.submit(functools.partial(progress, len(batch)))
    return None


def _seen(group: Group, asked: Questions) -> tuple[Tensor, Regions | None]:
    """Return the pictures of a group and the regions in them: what users' functions make.

    They are called one after the other, since they need not bear to be called at the same time.
    """
    seen = group.pictures
    seen = pictures_of(group.images, asked.picture) if seen is None else seen
    return seen, None if asked.regions is None else regions_of(asked.regions, seen)


def _explained(group: Group, seen: Tensor, own: Regions | None, asked: Questions) -> Explained:
    with _named(group.names):
        return explain_group(group, seen, own, asked)


def _add(shard: Shard, found: Future[Explained]) -> None:
    shard.add(found.result())


@contextlib.contextmanager
def _named(names: Sequence[str]) -> Iterator[None]:
    """Say of an exception which images it is about."""
    try:
        yield
    except Exception as error:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        error.add_note(f"while explaining {', '.join(names[:3])}{more}")
        raise
