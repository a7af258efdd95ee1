"""LeGrad: each block's attention, by what follows the last block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

import torch
from torch import Tensor, nn

from .attention import AttentionAttribution, chunked
from .explainers import at_least_float32
from .intercept import AttentionProbabilities
from .intercept.definitions import by_head
from .layers.attention import AttentionBlocks
from .methods import attention as methods
from .probe import Pass, Probe, Site, Tail
from .probe.derivatives import derivatives, pull_back


@final
class LeGrad(AttentionAttribution):
    """LeGrad (Bousselham et al. 2024), see :func:`camlens.methods.attention.legrad`.

    Each block's tokens are given to what follows the last block, the model's own norm and head, and
    that score's gradient by the block's own attention says which keys raise it; the map is the mean
    over the blocks. Where attention pools the tokens (SigLIP), each block's tokens are pooled by
    it, and the gradient is that by the pooling's attention, as the paper has it for such models.

    The probabilities are not multiplied in. The scores of the blocks are made of the mean over all
    of a block's tokens, class token and registers too, as in the authors' code
    (`WalBouss/LeGrad <https://github.com/WalBouss/LeGrad>`_); the mean takes every token's place
    in the last block's output, so it passes whatever norm, pooling and head the model has. The
    authors' code knows open_clip alone, has only the last blocks by default, scales each map by
    its least and largest value, and for SigLIP zeroes what an empty prompt shows; here neither is
    done. A key that a mask hides from every query has no attention that could raise a score: its
    value is zero.

    One forward pass runs each block on the input that it has, detached, so the graphs of the
    blocks are disjoint and begin at their attention. The backward passes go through each block
    once for each target, from its output to its attention.

    Args:
        model: as :class:`AttentionAttribution` takes it, and likewise what follows.
        pool: ``"mean"``, as in the paper; ``"own"``: the block's tokens are pooled as the
            model pools its last block's, such as by taking the class token.
        last: how many blocks are explained, counted from the last; None: all.
        blocks: the blocks, where they are not to be found.
        create_graph: not supported.
    """

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
        """Run the model once, its end once for each block, and each block backwards."""
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
        """Return (N, K, T) of one block, from the (K, *output) gradients by its output."""
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
        """Return for each block the scores' gradients by its tokens or their mean, (K, N, C, *)."""
        mean = self.pool == "mean"
        given = tokens.mean(dim=3, keepdim=True) if mean else tokens
        image, block = _rows(given)

        def make(rows: slice) -> Tensor:
            return given[block[rows], image[rows]].expand(-1, -1, tokens.shape[3])

        kept = []
        for part in tail.passes(make, image, start="sites"):
            chunks, parts = part.chunks(), []
            for chunk in chunks:
                (found,) = part.gradients(chunk, keep_graph=chunk is not chunks[-1])
                parts.append(found.sum(dim=3, keepdim=True) if mean else found)
            kept.append(torch.cat(parts, dim=1))
        return list(torch.cat(kept).unflatten(0, given.shape[:2]).transpose(1, 2))

    def _of_pooling(self, tail: Tail, tokens: Tensor, pooling: int) -> Tensor:
        """Return (N, K, T) from the attention that pools each block's tokens."""
        image, block = _rows(tokens)
        mode = AttentionProbabilities([pooling])

        def make(rows: slice) -> Tensor:
            return tokens[block[rows], image[rows]]

        kept = []
        for part in tail.passes(make, image, start="sites", mode=mode):
            attention = mode.seen[pooling]
            m, count = part.scores.shape
            chunks, parts = chunked(count, attention.numel() + part.scores.numel()), []
            for chunk in chunks:
                (found,) = derivatives(
                    part.scores,
                    [attention],
                    ["the attention that pools"],
                    chunk,
                    keep_graph=chunk is not chunks[-1],
                )
                parts.append(_values(found, attention, m))
            kept.append(torch.cat(parts, dim=1))
        every: Tensor = torch.cat(kept).unflatten(0, tokens.shape[:2])
        return every.mean(dim=0)


def _values(gradients: Tensor, attention: Tensor, images: int) -> Tensor:
    """Return (N, K, T) from (K, *attention) gradients, zero for keys that a mask hides from all."""
    heads = torch.stack([by_head(each, images) for each in gradients], dim=1)
    seen = by_head(attention.detach(), images).amax(dim=(1, 2)) > 0  # (N, T)
    return methods.legrad(at_least_float32(heads)).where(seen.unsqueeze(1), 0)


def _rows(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return of which image and of which block each row is that runs through the model's end."""
    blocks, n = tokens.shape[:2]
    image, block = torch.arange(n), torch.arange(blocks)
    return image.repeat(blocks).to(tokens.device), block.repeat_interleave(n).to(tokens.device)


def _of_last(probe: Probe, traced: Pass) -> Pass:
    """Return the last site's part of a pass, as a pass of its own."""
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
