"""Which of Lightning's messages a user of the commands need not read."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

# run.json is in the folder before the first checkpoint, on purpose; faces are in memory, so that
# workers would only cost; the last is Lightning's own use of torch.
_WARNINGS = (
    r"Checkpoint directory .* exists and is not empty",
    r"The '\w+_dataloader' does not have many workers",
    r".*isinstance\(treespec, LeafSpec\)",
)


@contextlib.contextmanager
def suppress_messages() -> Iterator[None]:
    """Leave out what says nothing of the run: advertisements, hardware that is not used, tips."""
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
