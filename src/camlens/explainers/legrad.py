"""LeGrad: gradients with respect to each block's attention, averaged over the blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

import torch
from torch import Tensor, nn

from ..intercept import AttentionProbabilities
from ..intercept.attention_by_definition import by_head
from ..layers.attention import AttentionBlocks
from ..methods import attention as methods
from ..probe import Pass, Probe, Site, Tail
from ..probe.derivatives import derivatives, pull_back
from .attention import AttentionAttribution, chunked
from .base import at_least_float32

__all__ = ["LeGrad"]


@final
class LeGrad(AttentionAttribution):
    r"""LeGrad (Bousselham et al. 2024): mean gradient with respect to the blocks' attention.

    .. math:: E_k = \frac{1}{L} \sum_l \frac{1}{h q} \sum_{h, q}
              \mathrm{ReLU}\Big(\frac{\partial y_l}{\partial A_{l h q k}}\Big)

    :math:`A_l` are the attention probabilities of block l, from queries q to keys k, and
    :math:`y_l` is the score that the model's own norm and head give the tokens of block l. The
    gradient shows which keys raise that score; the probabilities themselves are not a factor. In
    models that pool their tokens by attention (SigLIP), each block's tokens are pooled that way
    and the gradient is with respect to the pooling's attention, as in the paper.

    A block's score is computed from the mean over all its tokens, including class tokens and
    registers, as in the authors' code (`WalBouss/LeGrad <https://github.com/WalBouss/LeGrad>`_).
    Every token of the last block's output is replaced by this mean, so any norm, pooling and head
    can follow. The authors' code supports open_clip only, uses only the last blocks by default,
    stretches each map from its minimum to its maximum, and for SigLIP sets to zero what the map of
    an empty prompt shows; camlens does none of this. A key that a mask hides from every query has
    value zero.

    In the forward pass each block runs on its usual input, detached, so the blocks' graphs are
    separate and begin at their attention. The backward passes go through each block once for each
    target, from its output to its attention.

    Source: Bousselham et al., "LeGrad: An Explainability Method for Vision Transformers via Feature
    Formation Sensitivity", 2024 (arXiv:2404.03214). As a function of tensors:
    :func:`camlens.methods.attention.legrad`.

    Args:
        model: any module whose output, or part of it, is a score for each image, and whose blocks
            of global self-attention follow one another.
        pool: ``"mean"``, as in the paper; ``"own"``: each block's tokens are pooled as the model
            pools those of its last block, such as by taking the class token.
        last: the number of blocks to explain, counted from the last; None: all.
        blocks: the blocks, as names or modules, if they cannot be found automatically.
        create_graph: not supported.

    Raises:
        ValueError: ``create_graph`` is true; when called, if the model has no such chain of blocks,
            see :class:`AttentionAttribution`.
    """

    cost = "F + 0.7 F for each target"

    def __init__(
        self,
        model: nn.Module,
        *,
        pool: Literal["mean", "own"] = "mean",
        last: int | None = None,
        blocks: Sequence[str | nn.Module] | None = None,
        create_graph: bool = False,
    ) -> None:
        super().__init__(model, last=last, blocks=blocks, create_graph=create_graph)
        if pool not in ("mean", "own"):
            raise ValueError(f'expected pool "mean" or "own", got {pool!r}')
        self.pool = pool

    def token_values(self, probe: Probe, blocks: AttentionBlocks) -> Tensor:
        """Run the model once, its head once for each block, and each block backwards."""
        sites = [Site(name, blocks.tokens) for name in blocks.names]
        mode = AttentionProbabilities(() if blocks.pooling is not None else blocks.calls)
        traced = probe.run(sites=sites, start=None, mode=mode, severed=True)
        with torch.enable_grad():
            tokens = traced.activations()  # (N, C, T) of each block
        every = torch.stack([part.detach() for part in tokens])
        tail = Tail(probe, sites[-1], _of_last(probe, traced), batch=blocks.tokens.batch)
        if blocks.pooling is not None:
            return self._of_pooling(tail, every, blocks.pooling)
        gradients = self._gradients(tail, every)
        total: Tensor | None = None
        for site, call, part, given in zip(sites, blocks.calls, tokens, gradients, strict=True):
            with torch.enable_grad():
                output = part.mean(dim=2, keepdim=True) if self.pool == "mean" else part
            values = self._of_block(output, mode.seen.pop(call), given, site.name)
            total = values if total is None else total + values
        if total is None:
            raise RuntimeError("no block was explained")
        return total / len(sites)

    def _of_block(self, output: Tensor, attention: Tensor, gradients: Tensor, name: str) -> Tensor:
        """Return one block's (N, K, T) values, from the (K, *output) gradients of its output."""
        n = len(output)
        parts = []
        chunks = chunked(len(gradients), attention.numel() + 4 * output.numel())
        for chunk in chunks:
            (by_attention,) = pull_back(
                output, [attention], gradients[chunk], [name], keep_graph=chunk is not chunks[-1]
            )
            parts.append(_values(by_attention, attention, n))
        return torch.cat(parts, dim=1)

    def _gradients(self, tail: Tail, tokens: Tensor) -> list[Tensor]:
        """Return for each block the (K, N, C, *) gradients of its tokens or of their mean."""
        mean = self.pool == "mean"
        pooled = tokens.mean(dim=3, keepdim=True) if mean else tokens
        image, block = _rows(pooled)

        def make(rows: slice) -> Tensor:
            return pooled[block[rows], image[rows]].expand(-1, -1, tokens.shape[3])

        batches = []
        for part in tail.passes(make, image, start="sites"):
            chunks, parts = part.chunks(), []
            for chunk in chunks:
                (gradients,) = part.gradients(chunk, keep_graph=chunk is not chunks[-1])
                parts.append(gradients.sum(dim=3, keepdim=True) if mean else gradients)
            batches.append(torch.cat(parts, dim=1))
        return list(torch.cat(batches).unflatten(0, pooled.shape[:2]).transpose(1, 2))

    def _of_pooling(self, tail: Tail, tokens: Tensor, pooling: int) -> Tensor:
        """Return (N, K, T) values from the attention that pools each block's tokens."""
        image, block = _rows(tokens)
        mode = AttentionProbabilities([pooling])

        def make(rows: slice) -> Tensor:
            return tokens[block[rows], image[rows]]

        batches = []
        for part in tail.passes(make, image, start="sites", mode=mode):
            attention = mode.seen[pooling]
            m, count = part.scores.shape
            chunks, parts = chunked(count, attention.numel() + part.scores.numel()), []
            for chunk in chunks:
                (gradients,) = derivatives(
                    part.scores,
                    [attention],
                    ["the attention that pools the tokens"],
                    chunk,
                    keep_graph=chunk is not chunks[-1],
                )
                parts.append(_values(gradients, attention, m))
            batches.append(torch.cat(parts, dim=1))
        every: Tensor = torch.cat(batches).unflatten(0, tokens.shape[:2])
        return every.mean(dim=0)


def _values(gradients: Tensor, attention: Tensor, images: int) -> Tensor:
    """Return (N, K, T) from (K, *attention) gradients; 0 for keys masked from all queries."""
    heads = torch.stack([by_head(each, images) for each in gradients], dim=1)
    seen = by_head(attention.detach(), images).amax(dim=(1, 2)) > 0  # (N, T)
    return methods.legrad(at_least_float32(heads)).where(seen.unsqueeze(1), 0)


def _rows(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return the image and the block of each row that runs through the model's head."""
    blocks, n = tokens.shape[:2]
    image = torch.arange(n, device=tokens.device)
    block = torch.arange(blocks, device=tokens.device)
    return image.repeat(blocks), block.repeat_interleave(n)


def _of_last(probe: Probe, traced: Pass) -> Pass:
    """Return the last site's part of a pass, as a separate pass."""
    site = traced.sites[-1]
    return Pass(
        traced.outputs,
        traced.selection,
        {site.name: traced.captured[site.name].detach()},
        [site],
        model=probe.model,
        leaf=None,
        mode=None,
    )
