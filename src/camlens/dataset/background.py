"""Threads: batches explained side by side, and what comes after done in order by one of its own."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import torch

Work = Callable[[], object]


class Background:
    """One thread that does what it is given, in order; whoever is faster waits.

    As a context manager it ends when all is done. What it was given before an exception in the
    block is still done, so that whole shards are kept.

    Args:
        waiting: how much may wait to be done.

    Example:
        >>> done = []
        >>> with Background(2) as background:
        ...     for number in range(3):
        ...         background.submit(lambda number=number: done.append(number))
        >>> done
        [0, 1, 2]
    """

    def __init__(self, waiting: int) -> None:
        self._queue: queue.Queue[Work | None] = queue.Queue(waiting)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="camlens.dataset", daemon=True)

    def submit(self, work: Work) -> None:
        """Have something done.

        Raises:
            BaseException: what earlier work raised; nothing is done after that.
        """
        if self._error is not None:
            raise self._error
        self._queue.put(work)

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            if self._error is not None:
                continue  # taken from the queue all the same, since someone may wait to put
            try:
                work()
            except BaseException as error:
                self._error = error

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait until all is done; raise what went wrong, unless something else did."""
        self._queue.put(None)
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error


class _Here(Executor):
    """Does what it is given at once, on the calling thread; what that raises is raised."""

    def submit(self, work: Any, /, *args: Any, **options: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(work(*args, **options))
        return done


class _Alike(ThreadPoolExecutor):
    """Threads that compute in the modes of the thread that made them."""

    def __init__(self, device: str, *options: Any) -> None:
        super().__init__(*options)
        self._autocast = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        self._inference = torch.is_inference_mode_enabled()
        self._gradients = torch.is_grad_enabled()

    def submit(self, work: Any, /, *args: Any, **options: Any) -> Future[Any]:
        return super().submit(self._in_modes, work, *args, **options)

    def _in_modes(self, work: Any, /, *args: Any, **options: Any) -> Any:
        with (
            torch.inference_mode(self._inference),
            torch.set_grad_enabled(self._gradients),
            torch.autocast(*self._autocast),
        ):
            return work(*args, **options)


@contextlib.contextmanager
def side_by_side(count: int, device: str) -> Iterator[Executor]:
    """Do some things at the same time, each with an equal part of torch's threads.

    The threads compute in the caller's modes: ``torch.autocast`` of the device,
    ``torch.inference_mode`` and ``torch.no_grad``. What was not begun when an exception ends the
    block is not begun any more.

    Example:
        >>> with side_by_side(2, "cpu") as pool:
        ...     pool.submit(max, 1, 2).result()
        2
    """
    if count == 1:
        yield _Here()
        return
    threads = torch.get_num_threads()
    part = max(1, threads // count)
    pool = _Alike(device, count, "camlens.dataset", torch.set_num_threads, (part,))
    try:
        yield pool
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    finally:
        pool.shutdown()
        torch.set_num_threads(threads)  # what threads that start from now on take
