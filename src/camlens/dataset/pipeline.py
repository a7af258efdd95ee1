"""The way of a batch: its pictures and regions, explained, kept in its shard, the shard written."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

from torch import Tensor

from ..loading.faults import is_machine_fault
from ..regions.masks import Regions
from . import manifests
from .background import Background, side_by_side
from .explaining import device_of, explain_group
from .keeping import Explained
from .loading import Batch, End, Group, reason_of
from .questions import Questions, regions_of
from .samples import Unreadable
from .shards import Writer
from .tables import Shard
from .thumbnails import pictures_of

#: Groups of images and shards that may wait to be kept and written.
_WAITING = 4


def work_through(
    batches: Iterable[Batch | End],
    asked: Questions,
    run: Path,
    *,
    identity: str,
    begun: bool,
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
        identity: of the run, see :func:`camlens.dataset.manifests.identity`.
        begun: whether shards are there already, so that the question is known to have answers.
        concurrent_batches: how many are explained at once.
        progress: told the number of images of each batch, when it is kept, by another thread.

    Returns:
        The end of an iterable data set, where it was reached.

    Raises:
        LookupError, TypeError, ValueError: as the explainers, scores and ablations raise them,
            where no image can be explained.
        OSError: a shard cannot be written.
    """
    scored = asked.regions is not None
    shard = Shard(asked.classes)
    keeper = _Keeper(run, identity, begun=begun)
    with (
        Writer(run, identity) as writer,
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
                background.submit(functools.partial(keeper.keep, shard, found))
            if batch.last:
                write = functools.partial(writer.write, batch.shard, shard, regions=scored)
                background.submit(functools.partial(keeper.finish, write))
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


@dataclasses.dataclass(frozen=True)
class _Failure:
    """An image that could not be explained."""

    index: int
    name: str
    error: Exception


def _explained(
    group: Group, seen: Tensor, own: Regions | None, asked: Questions
) -> list[Explained | _Failure]:
    """Explain a group, or image by image if one of them is at fault.

    Raises:
        Exception: the machine is at fault.
    """
    try:
        with _named(group.names):
            return [explain_group(group, seen, own, asked)]
    except Exception as error:
        if is_machine_fault(error):
            raise
        if len(group.indexes) == 1:
            return [_Failure(group.indexes[0], group.names[0], error)]
    results: list[Explained | _Failure] = []
    for place in range(len(group.indexes)):
        one = slice(place, place + 1)
        regions = own if own is None or len(own.masks) == 1 else own.of_images(one)
        results += _explained(group[one], seen[one], regions, asked)
    return results


class _Keeper:
    """Keeps results in their shard; images that cannot be explained are listed with the reason.

    As long as nothing could be explained, what fails may be the question and not the image, such as
    a class that the model does not have: then the first error ends the run.
    """

    def __init__(self, run: Path, identity: str, *, begun: bool) -> None:
        self.run, self.identity = run, identity
        self.explained = begun
        self.error: Exception | None = None  # the first, as long as nothing could be explained

    def keep(self, shard: Shard, future: Future[list[Explained | _Failure]]) -> None:
        results = future.result()
        for result in results:
            if isinstance(result, _Failure):
                self.error = self.error or result.error
                reason = f"cannot be explained: {reason_of(result.error)}"
                shard.leave_out(result.index, Unreadable(reason, result.name))
            else:
                self.explained = True
                shard.add(result)
        if self.explained:
            self.error = None  # its traceback holds tensors
        elif len(results) > 1:
            self.check()

    def finish(self, write: Callable[[], object]) -> None:
        """Write a shard, if there were answers and the folder is still this run's."""
        self.check()
        manifests.check_identity(self.run, self.identity)
        write()

    def check(self) -> None:
        """Raise the first error if nothing could be explained so far."""
        if self.error is not None:
            raise self.error


@contextlib.contextmanager
def _named(names: Sequence[str]) -> Iterator[None]:
    """Say of an exception which images it is about."""
    try:
        yield
    except Exception as error:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        error.add_note(f"while explaining {', '.join(names[:3])}{more}")
        raise
