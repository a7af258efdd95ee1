"""Suppress messages of Lightning that do not concern users of the commands."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

# run.json is intentionally in the folder before the first checkpoint; images are in memory, so
# workers would only cost time; the last one concerns Lightning's own code.
_WARNINGS = (
    r"Checkpoint directory .* exists and is not empty",
    r"The '\w+_dataloader' does not have many workers",
    r".*isinstance\(treespec, LeafSpec\)",
)


@contextlib.contextmanager
def suppress_messages() -> Iterator[None]:
    """Suppress tips and lists of unused hardware."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _WARNINGS:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        logger.setLevel(level)
