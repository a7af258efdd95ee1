"""Derivatives of many scores in one backward pass, by ``torch.autograd.grad``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: The error message for scores that are not part of a graph.
NO_GRADIENT = (
    "the explained scores have no gradient: the targets callable or the model computed them under "
    "torch.no_grad() or detached them. Use no_grad only around constants, such as reference_score "
    "in lambda out: out[:, 0] - reference_score"
)


def derivatives(
    scores: Tensor,
    sources: Sequence[Tensor],
    names: Sequence[str],
    targets: slice = slice(None),
    *,
    keep_graph: bool = False,
    create_graph: bool = False,
) -> list[Tensor]:
    """Return the derivatives of some columns of (N, K) scores with respect to each source.

    Args:
        scores: (N, K).
        sources: tensors of the graph, of any shape.
        names: names of the sources, for error messages.
        targets: the columns, out of K.
        keep_graph: whether to keep the graph for further passes.
        create_graph: whether the derivatives are part of a graph.

    Returns:
        For each source (K', *its shape), with K' the number of columns.

    Raises:
        ValueError: the scores do not depend on a source, or autograd fails in the model.
    """
    n, k = scores.shape
    columns = range(k)[targets]
    rows = scores.new_zeros(len(columns), 1, k)
    rows[:, 0].diagonal(columns.start).fill_(1)
    return pull_back(
        scores,
        sources,
        rows.expand(-1, n, -1),
        names,
        keep_graph=keep_graph,
        create_graph=create_graph,
    )


def pull_back(
    output: Tensor,
    sources: Sequence[Tensor],
    gradients: Tensor,
    names: Sequence[str],
    *,
    keep_graph: bool = False,
    create_graph: bool = False,
) -> list[Tensor]:
    """Return the derivatives of K scores with respect to each source, given those of ``output``.

    All scores share one backward pass (``is_grads_batched``), which reads every weight once; if an
    operation does not support that, there is a pass for each score.

    Args:
        output: a tensor of the graph.
        sources: tensors of the graph from which it was computed.
        gradients: (K, *output), the derivatives of the K scores with respect to the output.
        names: names of the sources, for error messages.
        keep_graph: whether to keep the graph for further passes.
        create_graph: whether the derivatives are part of a graph.

    Returns:
        For each source (K, *its shape).

    Raises:
        ValueError: the output does not depend on a source, or autograd fails in the model.

    Example:
        >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> pull_back(x * x, [x], torch.tensor([[1.0, 0.0], [0.0, 5.0]]), ["x"])[0].tolist()
        [[2.0, 0.0], [0.0, 20.0]]
    """
    if not output.requires_grad:
        raise ValueError(NO_GRADIENT)

    def backward(given: Tensor, *, batched: bool, keep: bool) -> list[Tensor]:
        derivatives = torch.autograd.grad(
            output,
            sources,
            given,
            retain_graph=keep or create_graph,
            create_graph=create_graph,
            allow_unused=True,
            is_grads_batched=batched,
        )
        return _connected(derivatives, names)

    gradients = gradients.to(output.dtype)
    try:
        if len(gradients) == 1:
            return [g.unsqueeze(0) for g in backward(gradients[0], batched=False, keep=keep_graph)]
        try:
            return backward(gradients, batched=True, keep=True)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # an operation that cannot be batched; other errors recur below
            each = [backward(given, batched=False, keep=True) for given in gradients]
            return [torch.stack(rows) for rows in zip(*each, strict=True)]
    except RuntimeError as error:
        if text := remedy(error):
            raise ValueError(text) from error
        raise


def _connected(gradients: Sequence[Tensor | None], names: Sequence[str]) -> list[Tensor]:
    present = [gradient for gradient in gradients if gradient is not None]
    if len(present) < len(gradients):
        cut = [n for n, g in zip(names, gradients, strict=True) if g is None]
        raise ValueError(
            f"the explained scores do not depend on {cut}: it is not on the path to the output (of "
            "a layer's tensors only the first counts), or the model detaches it or runs what "
            "follows under no_grad, or the layer in a reentrant checkpoint. Choose an earlier "
            "layer, or a target that uses this one"
        )
    return present


#: Parts of autograd's messages about in-place operations: in the backward pass (the first) and in
#: the forward pass.
_OVERWRITTEN = (
    "modified by an inplace operation",
    "is being modified inplace",
    "is being used in an in-place operation",
)


def remedy(error: RuntimeError) -> str | None:
    """Return the remedy for an autograd error that the model's code causes, or None."""
    text = str(error)
    if "use_reentrant" in text:
        return (
            "the model recomputes activations with a reentrant torch.utils.checkpoint, which "
            "autograd.grad does not support: use checkpoint(..., use_reentrant=False), or switch "
            "gradient checkpointing off while you explain"
        )
    if "setup_context" in text:
        return (
            "the model calls an activation inside torch.vmap, where its backward rule cannot be "
            "replaced: write the model's forward without vmap, or use camlens.Saliency or "
            "camlens.IntegratedGradients"
        )
    if "cudnn RNN backward" in text:
        return (
            "cuDNN computes no gradients of recurrent layers in evaluation mode: explain under "
            "torch.backends.cudnn.flags(enabled=False)"
        )
    if any(words in text for words in _OVERWRITTEN):
        return (
            "the model overwrites a tensor that its gradient needs (an in-place operation after "
            "the explained layer, such as boxes decoded in place): explain a score that is "
            "computed before it, or write that operation without in-place assignment"
        )
    return None
