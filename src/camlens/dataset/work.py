"""Process batches: find pictures and regions, explain, score, and write shards."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

from torch import Tensor

from ..explainers.base import Explainer
from ..loading.faults import is_machine_fault
from ..regions.masks import Regions
from . import manifest
from .batches import Batch, Group, reason_of
from .image_results import Explained, device_of, explain_group
from .items import Unreadable, pictures_of
from .options import RegionsOf, RunOptions
from .shards import Writer
from .tables import Shard
from .threads import InOrder, thread_of_model

#: Length of the queue of groups and shards that wait to be stored and written.
_WAITING = 4


def work_through(
    batches: Iterable[Batch],
    explainers: Sequence[Explainer],
    options: RunOptions,
    run: Path,
    *,
    identity: str,
    begun: bool,
    progress: Callable[[int], object] | None = None,
    watch: Callable[[Explained], object] | None = None,
) -> None:
    """Explain batches and write their shards.

    The calling thread reads images and calls the functions that find pictures and regions. A second
    thread runs the model, unless it is on the CPU, and a third collects the results and writes.

    Args:
        batches: batches of whole shards, in order.
        explainers: explainers of one model.
        options: the run's options.
        run: the run's folder.
        identity: the run's identity, see :func:`camlens.dataset.manifest.identity`.
        begun: whether finished shards exist, which shows that the targets are valid.
        progress: called with the number of images of each stored batch, on another thread.
        watch: called with the results of each group of images, including gradients, on that thread.

    Raises:
        LookupError, TypeError, ValueError: an explainer, score or ablation raises it and no image
            can be explained.
        OSError: a shard cannot be written.
    """
    shard = Shard(options)
    keeper = _Keeper(run, identity, begun=begun, watch=watch)
    with (
        Writer(run, identity, options.tables) as writer,
        InOrder(_WAITING) as in_order,
        thread_of_model(device_of(explainers[0])) as pool,
    ):

        def explain(
            group: Group, pictures: Tensor, regions: Regions | None
        ) -> list[Explained | _Failure]:
            if in_order.failed:
                return []
            keep = watch is not None
            return _explained(explainers, group, pictures, regions, options, gradients=keep)

        for batch in batches:
            for index, item in batch.unreadable:
                shard.leave_out(index, item)
            for group in batch.groups:
                with _named(group.names):
                    pictures, regions = _seen(group, options)
                found = pool.submit(explain, group, pictures, regions)
                in_order.submit(functools.partial(keeper.keep, shard, found))
            if batch.last:
                write = functools.partial(writer.write, batch.shard, shard)
                in_order.submit(functools.partial(keeper.finish, write))
                shard = Shard(options)
            if progress is not None:  # queued after the batch that it reports
                in_order.submit(functools.partial(progress, len(batch)))


def _seen(group: Group, options: RunOptions) -> tuple[Tensor, Regions | None]:
    """Return the pictures of a group and their regions, by calling the user's functions.

    The functions are called one after the other, since they need not be thread-safe.
    """
    pictures = group.pictures
    if pictures is None:
        pictures = pictures_of(group.images, options.picture)
    return pictures, None if options.regions is None else _regions(options.regions, group, pictures)


def _regions(regions: RegionsOf, group: Group, pictures: Tensor) -> Regions:
    """Return the regions of a group's pictures, (N, 1 or 3, H, W) uint8.

    Raises:
        TypeError: the function did not return regions.
        ValueError: the number or size of the regions is wrong, or a sample has no regions.
    """
    if regions == "own":
        if group.regions is None:
            raise ValueError(
                f'regions="own" uses the regions of each sample, but {group.names[0]!r} has none: '
                "return camlens.dataset.Sample(..., regions=...)"
            )
        return group.regions
    size = (pictures.shape[-2], pictures.shape[-1])
    if isinstance(regions, Regions):
        return regions.resize(size)
    located = regions(pictures.float() / 255)
    if not isinstance(located, Regions):
        raise TypeError(
            f"expected regions= to return camlens.regions.Regions, got {type(located).__name__}"
        )
    if located.size != size or len(located.masks) not in (1, len(pictures)):
        raise ValueError(
            f"expected regions= to return regions for {len(pictures)} pictures of size {size}, got "
            f"{len(located.masks)} of size {located.size}"
        )
    return located


@dataclasses.dataclass(frozen=True)
class _Failure:
    """An image that could not be explained."""

    index: int
    name: str
    error: Exception


def _explained(
    explainers: Sequence[Explainer],
    group: Group,
    pictures: Tensor,
    regions: Regions | None,
    options: RunOptions,
    *,
    gradients: bool,
) -> list[Explained | _Failure]:
    """Explain a group, or each image separately if the group fails.

    Raises:
        Exception: an error of the machine.
    """
    try:
        with _named(group.names):
            result = explain_group(
                explainers, group, pictures, regions, options, gradients=gradients
            )
            return [result]
    except Exception as error:
        if is_machine_fault(error):
            raise
        if len(group.indexes) == 1:
            return [_Failure(group.indexes[0], group.names[0], error)]
    results: list[Explained | _Failure] = []
    for place in range(len(group.indexes)):
        row = slice(place, place + 1)
        own_regions = None if regions is None else regions.of_images(row)
        results += _explained(
            explainers, group[row], pictures[row], own_regions, options, gradients=gradients
        )
    return results


class _Keeper:
    """Collects results in their shard, and lists images that cannot be explained, with reasons.

    If no image has been explained yet, the targets rather than the images may be wrong, for example
    a class that the model does not have. In that case the first error ends the run.
    """

    def __init__(
        self, run: Path, identity: str, *, begun: bool, watch: Callable[[Explained], object] | None
    ) -> None:
        self.run, self.identity, self.watch = run, identity, watch
        self.explained = begun
        self.error: Exception | None = None  # the first error, until an image is explained

    def keep(self, shard: Shard, future: Future[list[Explained | _Failure]]) -> None:
        results = future.result()
        for result in results:
            if isinstance(result, _Failure):
                self.error = self.error or result.error
                reason = f"cannot be explained: {reason_of(result.error)}"
                shard.leave_out(result.index, Unreadable(reason, result.name))
            else:
                self.explained = True
                if self.watch is not None:
                    self.watch(result)
                shard.add(result)
        if self.explained:
            self.error = None  # its traceback keeps tensors alive
        elif len(results) > 1:
            self.check()

    def finish(self, write: Callable[[], object]) -> None:
        """Write a shard if an image was explained and the folder still belongs to this run."""
        self.check()
        manifest.check_identity(self.run, self.identity)
        write()

    def check(self) -> None:
        """Raise the first error if no image has been explained so far."""
        if self.error is not None:
            raise self.error


@contextlib.contextmanager
def _named(names: Sequence[str]) -> Iterator[None]:
    """Add the images' names to an exception."""
    try:
        yield
    except Exception as error:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        error.add_note(f"while explaining {', '.join(names[:3])}{more}")
        raise
