"""Scores of many changed images in batches, with a check that a batch does not change a score."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..probe import Probe
from ..progress import progress_bar
from ..targets import Selection
from .base import at_least_float32


def read_all(
    probe: Probe,
    make: Callable[[slice], Tensor],
    source: Tensor,
    read: Callable[[Selection], Tensor],
    *,
    batch_size: int,
    label: str,
    progress: bool | None,
    check: bool = False,
) -> Tensor:
    """Return (M, K) values read from the scores of M changed images, with a progress bar.

    Args:
        probe: the call's model, images and targets.
        make: computes changed images, see :meth:`camlens.probe.Probe.selections`.
        source: (M,) int64, the image that each was made from.
        read: maps the selection of m images to (m, K) values.
        batch_size: number of images in a batch.
        label: text in front of the progress bar.
        progress: whether to show the bar. None: if standard error is a terminal.
        check: whether to check that a score does not depend on the other images of its batch. To
            this end the first batch also holds the first unchanged image, which must have the same
            score as in the call.

    Raises:
        ValueError: a score depends on the other images of its batch.
    """
    values = source.new_empty(0, dtype=torch.float32)
    first = 0
    if check:
        selections = _checked(probe, make, source, batch_size)
    else:
        selections = probe.selections(make, source, batch_size=batch_size)
    with progress_bar(len(source), label, shown=progress) as advance:
        for selection in selections:
            batch = at_least_float32(read(selection))
            if first == 0:
                # One allocation: small tensors kept between batches would fragment the memory.
                values = batch.new_empty(len(source), batch.shape[1])
            values[first : first + len(batch)] = batch
            first += len(batch)
            advance(len(batch))
    return values


@torch.no_grad()
def _checked(
    probe: Probe, make: Callable[[slice], Tensor], source: Tensor, batch_size: int
) -> Iterator[Selection]:
    """Yield the selections of batches, after a check with the first image in the first batch.

    Raises:
        ValueError: in that batch the unchanged image has a different score than in the call.
    """
    rows = slice(0, batch_size)
    images = torch.cat([make(rows), probe.images[:1]])
    part = probe.changed(images, torch.cat([source[rows], source.new_zeros(1)]))
    selection = part.run(start=None).selection
    _check_alone(probe.unchanged().scores.detach(), selection.scores[-1])
    yield Selection(
        selection.scores[:-1],
        selection.classes[:-1],
        selection.class_count,
        None if selection.logits is None else selection.logits[:-1],
    )

    def others(rows: slice) -> Tensor:
        return make(slice(rows.start + batch_size, rows.stop + batch_size))

    yield from probe.selections(others, source[batch_size:], batch_size=batch_size)


def _check_alone(alone: Tensor, beside: Tensor) -> None:
    gap = (at_least_float32(beside) - at_least_float32(alone[0])).abs().amax()
    rounding = 1e-3 if torch.finfo(alone.dtype).eps < 1e-3 else 0.1
    if gap > rounding * at_least_float32(alone).abs().amax():
        raise ValueError(
            "the scores of an image change with the other images of the batch, as after a "
            "BatchNorm without running statistics or a softmax over the batch: choose scores that "
            "depend on one image alone"
        )
