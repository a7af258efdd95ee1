"""Attention maps of vision transformers: base class, generic attention and attention rollout."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from ..intercept import AttentionProbabilities, MeanProbabilities
from ..intercept.attention_by_definition import by_head
from ..layers.attention import AttentionBlocks, MeasuredBlocks
from ..layers.measurement_cache import MeasuredLayers
from ..methods import attention as methods
from ..options import integer
from ..probe import Probe, Site
from ..probe.derivatives import derivatives, pull_back
from ..probe.passes import CHUNK_BYTES
from ..registration import Registration
from .base import Attribution, Explainer, at_least_float32

__all__ = ["AttentionAttribution", "AttentionRollout", "GenericAttention"]


class AttentionAttribution(Explainer):
    """Base class of attention maps, computed from the attention of a vision transformer's blocks.

    The model runs unchanged, with or without fused attention; only the probabilities of the
    explained blocks are computed from their definition, softmax(Q K^T). In the first call with
    images of a given shape, camlens finds out which modules are the blocks, where in the image each
    token lies and how the model pools the tokens (:mod:`camlens.layers`).

    ``raw`` is (N, K, *grid), one value for each patch. Its unit depends on the method.

    Args:
        model: any module whose output, or part of it, is a score for each image, and whose blocks
            of global self-attention follow one another.
        last: the number of blocks to explain, counted from the last; None: all.
        blocks: the blocks, as names or modules, if they cannot be found automatically, or if the
            score also depends on what bypasses them. A block calls attention once and returns
            tokens of the shape that it receives.
        create_graph: not supported.

    Raises:
        ValueError: ``create_graph`` is true; when called, if the model has no such chain of blocks,
            if evidence bypasses the last one, or if heads lie before the images in the attention.
            Windowed, hierarchical, channel and class attention give no map from tokens to tokens of
            the whole image.
    """

    needs = "attention"

    def __init__(
        self,
        model: nn.Module,
        *,
        last: int | None = None,
        blocks: Sequence[str | nn.Module] | None = None,
        create_graph: bool = False,
    ) -> None:
        super().__init__(model)
        if create_graph:
            raise ValueError(
                f"{type(self).__name__} does not support create_graph=True: to train with maps use "
                "GradCAM or HiResCAM"
            )
        self.last = None if last is None else integer("last", last)
        self.blocks = blocks
        self._layers = MeasuredLayers()
        self._blocks = MeasuredBlocks(self._layers)

    @abc.abstractmethod
    def token_values(self, probe: Probe, blocks: AttentionBlocks) -> Tensor:
        """Return (N, K, T) values, one for each of the T tokens that enter the first block."""

    @final
    def attribute(self, probe: Probe) -> Attribution:
        """Find the blocks, and arrange the tokens' values on the grid of patches."""
        blocks = self._blocks.find(probe, self.blocks).last(self.last)
        values = self.token_values(probe, blocks)
        raw = values[:, :, blocks.places.to(values.device)].unflatten(2, blocks.grid)
        registration = Registration.stretched(
            probe.size, blocks.grid, proven=blocks.proven, span=blocks.span
        )
        return Attribution(raw=raw, layers=blocks.names, registration=registration)


@final
class GenericAttention(AttentionAttribution):
    r"""Generic attention explainability (Chefer et al. 2021): gradient-weighted attention rollout.

    .. math:: R = (I + \bar A_L) \cdots (I + \bar A_1), \quad
              \bar A_l = E_h\Big[\Big(\frac{\partial y}{\partial A_l} \odot A_l\Big)^+\Big]

    :math:`A_l` are the attention probabilities of block l, :math:`E_h` the mean over its heads and
    y the explained score. The map is one row of R: that of the class token if the model's head uses
    the class token, the mean of the patches' rows if it averages the patches, and the pooling's
    row if it pools by attention. The gradient of the score with respect to the last block's output
    shows which of these applies, see :func:`camlens.methods.attention.token_weights`. The row's
    starting value, the identity's share, is subtracted, as it only states that each token contains
    itself.

    camlens builds the product from the last block backwards, one row for each target, together
    with the gradients. This keeps neither matrices of tokens by tokens nor the gradients of several
    blocks in memory.

    Source: Chefer, Gur and Wolf, "Generic Attention-model Explainability for Interpreting Bi-Modal
    and Encoder-Decoder Transformers", ICCV 2021 (arXiv:2103.15679), equations 5 and 6, which are
    :func:`camlens.methods.attention.relevance` and
    :func:`camlens.methods.attention.generic_attention_step`. The authors' notebook for CLIP uses
    the last block alone: ``last=1``.

    Args:
        model: any module whose output, or part of it, is a score for each image, and whose blocks
            of global self-attention follow one another.
        last: the number of blocks to explain, counted from the last; None: all, as in the paper.
        blocks: the blocks, as names or modules, if they cannot be found automatically.
        create_graph: not supported.

    Raises:
        ValueError: ``create_graph`` is true; when called, if the model has no such chain of blocks,
            see :class:`AttentionAttribution`.
    """

    cost = "F + F for each target"

    def token_values(self, probe: Probe, blocks: AttentionBlocks) -> Tensor:
        """Run the model once, and compute gradients back to the first block's attention."""
        pooling = blocks.pooling
        mode = AttentionProbabilities([*blocks.calls, *([] if pooling is None else [pooling])])
        traced = probe.run(sites=[Site(name) for name in blocks.names], mode=mode)
        attention = [mode.seen[call] for call in blocks.calls]
        outputs = [traced.captured[name] for name in blocks.names]
        pool = None if pooling is None else mode.seen[pooling]
        largest = max(a.numel() for a in attention) * 2 + 4 * outputs[0].numel()
        chunks = chunked(traced.scores.shape[1], largest)
        parts = []
        for chunk in chunks:
            keep = chunk is not chunks[-1]
            first = derivatives(
                traced.scores,
                [outputs[-1], *([] if pool is None else [pool])],
                [blocks.names[-1], "the attention that pools the tokens"],
                chunk,
                keep_graph=keep,
            )
            rows = _token_weights(first[0], blocks)
            start = rows
            if pool is not None:
                start = torch.zeros_like(rows)
                rows = _relevance(first[1], pool, len(probe.images)).mean(dim=2)
            gradients = first[0]
            for level in range(len(attention) - 1, -1, -1):
                below = [outputs[level - 1]] if level else []
                pulled = pull_back(
                    outputs[level],
                    [attention[level], *below],
                    gradients,
                    [blocks.names[level], *blocks.names[:level][-1:]],
                    keep_graph=keep,
                )
                mean = _relevance(pulled[0], attention[level], len(probe.images))
                rows = methods.generic_attention_step(rows, mean.to(rows))
                gradients = pulled[-1]
            parts.append(rows - start)
        return torch.cat(parts, dim=1)


@final
class AttentionRollout(AttentionAttribution):
    r"""Attention rollout (Abnar and Zuidema 2020): attention multiplied over the blocks.

    .. math:: R = \prod_l (0.5 A_l + 0.5 I)

    :math:`A_l` is the mean of block l's attention probabilities over its heads. The map is one row
    of R, chosen as for :class:`GenericAttention`. It shows where attention goes, but not for which
    class: the map is the same for every target, unless the model's head uses both class tokens and
    patches, whose weights then depend on the target
    (:func:`camlens.methods.attention.token_weights`).

    Implementations that take the minimum or maximum over the heads, or discard most of the
    attention, are not this method.

    Source: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020
    (arXiv:2005.00928), equation 1. As a function of tensors:
    :func:`camlens.methods.attention.rollout_step`.

    Args:
        model: any module whose output, or part of it, is a score for each image, and whose blocks
            of global self-attention follow one another.
        last: the number of blocks to explain, counted from the last; None: all, as in the paper.
        blocks: the blocks, as names or modules, if they cannot be found automatically.
        create_graph: not supported.

    Raises:
        ValueError: ``create_graph`` is true; when called, if the model has no such chain of blocks,
            see :class:`AttentionAttribution`.
    """

    cost = "F"

    def token_values(self, probe: Probe, blocks: AttentionBlocks) -> Tensor:
        """Run the model once, and compute gradients back to the last block's output."""
        pooling = blocks.pooling
        calls = [*blocks.calls, *([] if pooling is None else [pooling])]
        mode = MeanProbabilities(calls, len(probe.images))
        traced = probe.run(sites=[Site(blocks.names[-1])], mode=mode)
        output = traced.captured[blocks.names[-1]]
        chunks = chunked(traced.scores.shape[1], output.numel())
        parts = []
        for chunk in chunks:
            if pooling is None:
                (gradients,) = derivatives(
                    traced.scores,
                    [output],
                    [blocks.names[-1]],
                    chunk,
                    keep_graph=chunk is not chunks[-1],
                )
                rows = _token_weights(gradients, blocks)
            else:
                count = len(range(traced.scores.shape[1])[chunk])
                rows = mode.seen[pooling].mean(dim=1, keepdim=True).expand(-1, count, -1)
            for call in reversed(blocks.calls):
                rows = methods.rollout_step(rows, mode.seen[call].to(rows))
            parts.append(rows)
        return torch.cat(parts, dim=1)


def _token_weights(gradients: Tensor, blocks: AttentionBlocks) -> Tensor:
    """Return (N, K, T): the weight of each token in the score, from (K, *output) gradients."""
    tokens = torch.stack([blocks.tokens(each) for each in gradients], dim=1)  # (N, K, C, T)
    patches = torch.zeros(blocks.count, dtype=torch.bool, device="cpu")
    patches[blocks.places] = True
    sizes = at_least_float32(tokens).norm(dim=2)
    return methods.token_weights(sizes, patches.to(sizes.device))


def _relevance(gradients: Tensor, attention: Tensor, images: int) -> Tensor:
    """Return the (N, K, queries, keys) relevance of equation 5, from (K, *attention) gradients."""
    heads = torch.stack([by_head(each, images) for each in gradients], dim=1)
    own = by_head(attention.detach(), images)
    mean: Tensor = methods.relevance(at_least_float32(heads), at_least_float32(own))
    return mean


def chunked(targets: int, each: int) -> list[slice]:
    """Return slices of K targets whose gradients, of ``each`` values a target, fit into memory."""
    step = max(1, CHUNK_BYTES // (4 * each))
    return [slice(start, start + step) for start in range(0, targets, step)]
