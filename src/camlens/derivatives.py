"""Derivatives of many scores from one graph: a thin layer over ``torch.autograd.grad``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def derivatives(
    scores: Tensor,
    inputs: Sequence[Tensor],
    *,
    names: Sequence[str],
    columns: slice = slice(None),
    keep_graph: bool = False,
) -> list[Tensor]:
    """Return the derivatives of some columns of ``scores`` by each input, from one graph.

    The columns go through the backward pass together (``is_grads_batched``), which reads
    every weight once; where an operation cannot do that, one after the other.

    Args:
        scores: (N, K).
        inputs: tensors with N as the first dimension, such as (N, C, h, w).
        names: of the inputs, for the error.
        columns: which of the K.
        keep_graph: whether the graph is needed again.

    Returns:
        For each input (N, K', ...), K' being the number of columns.

    Raises:
        ValueError: the scores do not depend on an input.
    """
    _check_connected(scores, inputs, names)
    picked = torch.eye(scores.shape[1], dtype=scores.dtype, device=scores.device)[columns]
    rows = picked.unsqueeze(1).expand(-1, len(scores), -1)  # (K', N, K), one-hot

    def backward(row: Tensor, batched: bool, keep: bool) -> tuple[Tensor | None, ...]:
        grads: tuple[Tensor | None, ...] = torch.autograd.grad(
            scores, inputs, row, retain_graph=keep, allow_unused=True, is_grads_batched=batched
        )
        return grads

    if len(rows) == 1:
        return [g.unsqueeze(1) for g in _connected(backward(rows[0], False, keep_graph), names)]
    try:
        found = backward(rows, True, True)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # an operation that cannot be batched; a true error comes again below
        each = [_connected(backward(row, False, True), names) for row in rows]
        return [torch.stack(grads, dim=1) for grads in zip(*each, strict=True)]
    return [g.movedim(0, 1) for g in _connected(found, names)]


def _check_connected(scores: Tensor, inputs: Sequence[Tensor], names: Sequence[str]) -> None:
    if not all(tensor.requires_grad for tensor in inputs):
        raise ValueError("no gradients were recorded: use tap(model, layers, gradients=True)")
    if not scores.requires_grad:
        _connected([None] * len(inputs), names)


def _connected(gradients: Sequence[Tensor | None], names: Sequence[str]) -> list[Tensor]:
    found = [gradient for gradient in gradients if gradient is not None]
    if len(found) < len(gradients):
        cut = [n for n, g in zip(names, gradients, strict=True) if g is None]
        raise ValueError(
            f"the explained scores do not depend on {cut}: it lies beside or behind the way to "
            "the output (of a layer that returns several tensors, only the first counts), or the "
            "model computes its output under no_grad or detaches it. Choose an earlier layer, or "
            "a target that uses this one"
        )
    return found
