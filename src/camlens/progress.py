"""A progress bar for long computations in a terminal."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(
    total: int, label: str, *, shown: bool | None = None
) -> Iterator[Callable[[int], object]]:
    """Yield a function that advances the bar by a number of forward passes.

    Args:
        total: number of forward passes in all.
        label: text in front of the bar.
        shown: whether to show the bar. None: if standard error is a terminal, tqdm is installed and
            the computation takes more than a second.

    Raises:
        ImportError: ``shown`` is true and tqdm is not installed.

    Example:
        >>> with progress_bar(2, "RISE", shown=False) as advance:
        ...     advance(1)
    """
    if not _wanted(shown):
        yield lambda count: None
        return
    from tqdm import tqdm

    delay = 0 if shown else 1
    with tqdm(total=total, desc=label, unit="image", leave=False, delay=delay) as bar:
        yield bar.update


def _wanted(shown: bool | None) -> bool:
    terminal = sys.stderr is not None and sys.stderr.isatty()
    if not (terminal if shown is None else shown):
        return False
    installed = importlib.util.find_spec("tqdm") is not None
    if shown and not installed:
        raise ImportError("progress=True needs tqdm: pip install tqdm, or omit progress")
    return installed
