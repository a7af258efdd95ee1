"""Helper threads of a run: one that does work in order, and one that runs the model."""

from __future__ import annotations

import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import torch
from torch.overrides import _get_current_function_mode


class InOrder:
    """A thread that does submitted work in order; the submitter waits while the queue is full.

    As a context manager it ends when all work is done. Work submitted before an exception in the
    block is still done, so that whole shards are kept. Torch uses one thread inside it: with more
    OpenMP threads than cores, GNU's OpenMP lets all of them sleep between two operations, and a
    small network takes a tenth longer.

    Args:
        waiting: length of the queue.

    Example:
        >>> done = []
        >>> with InOrder(2) as in_order:
        ...     for number in range(3):
        ...         in_order.submit(lambda number=number: done.append(number))
        >>> done
        [0, 1, 2]
    """

    def __init__(self, waiting: int) -> None:
        self._queue: queue.Queue[Callable[[], object] | None] = queue.Queue(waiting)
        self._error: BaseException | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._work, name="camlens.dataset", daemon=True)

    @property
    def failed(self) -> bool:
        """Whether work raised an exception, so that no more work is done."""
        return self._error is not None

    def submit(self, work: Callable[[], object]) -> None:
        """Queue a function to be called.

        Raises:
            BaseException: the exception of earlier work, after which no work is done.
        """
        if self._error is not None:
            raise self._error
        self._queue.put(work)

    def _work(self) -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # makes the setting local to this thread
        self._started.set()
        while (work := self._queue.get()) is not None:
            if self._error is not None:
                continue  # still taken from the queue, since a submitter may be waiting
            try:
                work()
            except BaseException as error:
                self._error = error

    def __enter__(self) -> Self:
        """Start the thread."""
        threads = torch.get_num_threads()
        self._thread.start()
        self._started.wait()
        torch.set_num_threads(threads)  # the default for threads that start from now on
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait until all work is done; raise its exception, unless the block raised one."""
        self._queue.put(None)
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error


class _Here(Executor):
    """Runs submitted work immediately on the calling thread, and lets its exceptions through."""

    def submit(self, work: Any, /, *args: Any, **options: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(work(*args, **options))
        return done


class _InModes(ThreadPoolExecutor):
    """A thread that runs in the torch modes and on the stream of the thread that created it."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(1, "camlens.dataset")
        kind = device.type
        self._autocast = kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        self._inference = torch.is_inference_mode_enabled()
        self._gradients = torch.is_grad_enabled()
        self._stream = torch.cuda.current_stream(device) if kind == "cuda" else None
        self._variables = contextvars.copy_context()

    def submit(self, work: Any, /, *args: Any, **options: Any) -> Future[Any]:
        return super().submit(self._variables.run, self._in_modes, work, *args, **options)

    def _in_modes(self, work: Any, /, *args: Any, **options: Any) -> Any:
        with (
            torch.inference_mode(self._inference),
            torch.set_grad_enabled(self._gradients),
            torch.autocast(*self._autocast),
            torch.cuda.stream(self._stream),  # None: the current stream
        ):
            return work(*args, **options)


def overlaps(device: torch.device) -> bool:
    """Return whether a model runs on a thread of its own.

    On a CPU the model uses all cores anyway. A function mode of the caller, which intercepts
    torch's functions, would not apply on another thread.
    """
    return device.type != "cpu" and _get_current_function_mode() is None


@contextlib.contextmanager
def thread_of_model(device: torch.device) -> Iterator[Executor]:
    """Run a model on its own thread if that is faster, otherwise on the calling thread.

    It runs in the caller's modes: autocast, inference mode, gradients, stream, context variables.
    Submitted work is still done after an error in the block, but not after an interrupt.

    Example:
        >>> with thread_of_model(torch.device("cpu")) as pool:
        ...     pool.submit(max, 1, 2).result()
        2
    """
    if not overlaps(device):
        yield _Here()
        return
    pool = _InModes(device)
    try:
        yield pool
    except BaseException as error:
        pool.shutdown(cancel_futures=not isinstance(error, Exception))
        raise
    finally:
        pool.shutdown()
