"""Work that is done in order by one thread beside the computing, and never piles up."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

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
