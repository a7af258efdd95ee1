"""Refuses models whose scores are random in evaluation mode."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch

from .probe import Probe

#: Largest change that counts as rounding, as a fraction of the largest score.
_SMALL = 1e-4
#: Number of repeated passes. Several, as a rare random operation, such as skipping a block with a
#: probability of 0.1, may leave two passes alike.
_REPEATS = 4


@contextlib.contextmanager
def random_scores_refused(probe: Probe) -> Iterator[None]:
    """Refuse random scores if torch's random state, of the CPU or CUDA, changes in the block.

    Comparing the states costs no pass of the model. A changed state alone is no fault: the model
    may not use the numbers that it draws, or another thread may have drawn them. Python's own
    generator is not compared, since run-time type checkers, such as beartype, draw from it at
    every call.

    Raises:
        ValueError: see :func:`check_repeatable`.
    """
    before = _states()
    try:
        yield
    except (LookupError, ValueError):
        # It may be a consequence of random scores, such as those of two runs that must agree.
        if _states() != before:
            check_repeatable(probe)
        raise
    if _states() != before:
        check_repeatable(probe)


def check_repeatable(probe: Probe) -> None:
    """Check that repeated passes of the same images give the same scores.

    Raises:
        ValueError: the scores differ.
    """
    arguments = probe.images, probe.inputs, probe.keywords
    first = Probe(probe.model, *arguments, probe.targets)
    scores = first.unchanged().scores.detach()
    targets = first.fixed_targets()
    for _ in range(_REPEATS):
        again = Probe(probe.model, *arguments, targets).unchanged().scores.detach()
        if (again - scores).abs().amax() > _SMALL * scores.abs().amax():
            raise ValueError(
                "the scores of the same images change from one forward pass to the next, although "
                "the model is in evaluation mode: switch off random operations, such as dropout "
                "with training=True"
            )


def _states() -> list[bytes]:
    """Return the states of the CPU's and CUDA's generators, which are in main memory."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        states += torch.cuda.get_rng_state_all()
    return [np.asarray(state).tobytes() for state in states]
