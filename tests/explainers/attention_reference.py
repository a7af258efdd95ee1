"""The attention methods the slow way: torch's own hooks, explicit attention, the whole graph."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional


@contextlib.contextmanager
def explicit_attention(kept: list[Tensor], images: int) -> Iterator[None]:
    """Replace fused attention and the softmax of eager attention by some that are kept."""
    fused, softmax = functional.scaled_dot_product_attention, functional.softmax

    def attention(  # noqa: PLR0917  the signature of the function that it stands for
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **_: object,
    ) -> Tensor:
        logits = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            logits = logits + torch.full(logits.shape[-2:], -torch.inf).triu(1)
        if attn_mask is not None:
            added = attn_mask
            if attn_mask.dtype == torch.bool:
                added = torch.zeros(attn_mask.shape).masked_fill(~attn_mask, -torch.inf)
            logits = logits + added
        kept.append(logits.softmax(dim=-1))
        return kept[-1] @ value

    def kept_softmax(values: Tensor, *args: object, **kwargs: object) -> Tensor:
        result = softmax(values, *args, **kwargs)
        if result.ndim < 3:
            return result
        kept.append(result.reshape(images, -1, *result.shape[-2:]))
        return kept[-1].view(result.shape)

    functional.scaled_dot_product_attention = attention
    functional.softmax = kept_softmax
    try:
        yield
    finally:
        functional.scaled_dot_product_attention, functional.softmax = fused, softmax


class Reference:
    """One forward pass with explicit attention: the blocks' outputs and probabilities.

    Args:
        model: the model.
        images: its images.
        blocks: names of the blocks.
        score: from the model's outputs to (N, K) scores.
        batch: the dimension of a block's output that holds the images.
        severed: whether each block is given its input without the graph that led to it.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        blocks: list[str],
        score: Callable[[object], Tensor],
        batch: int = 0,
        *,
        severed: bool = False,
    ) -> None:
        self.severed = severed
        self.model, self.images, self.blocks, self.score = model, images, blocks, score
        self.axis = 1 - batch  # the tokens'
        self.outputs: list[Tensor] = []
        self.kept: list[Tensor] = []
        self.attention: list[Tensor] = []
        handles = [model.get_submodule(name).register_forward_hook(self._keep) for name in blocks]
        with explicit_attention(self.kept, len(images)):
            self.scores = score(model(images))
        for handle in handles:
            handle.remove()
        self.pooling = next((a for a in self.kept if a.shape[-2] == 1), None)

    @property
    def count(self) -> int:
        return self.outputs[-1].shape[self.axis]

    def _keep(self, _: object, __: object, output: object) -> object:
        self.outputs.append(output[0] if isinstance(output, tuple) else output)
        self.attention.append(self.kept[-1])
        if not self.severed:
            return None
        given = self.outputs[-1].detach()
        return (given, *output[1:]) if isinstance(output, tuple) else given

    def scores_of(self, tokens: Tensor, kept: list[Tensor] | None = None) -> Tensor:
        """Run the whole model with the last block's output replaced."""

        def replace(_: object, __: object, output: object) -> object:
            return (tokens, *output[1:]) if isinstance(output, tuple) else tokens

        handle = self.model.get_submodule(self.blocks[-1]).register_forward_hook(replace)
        with explicit_attention([] if kept is None else kept, len(self.images)):
            scores = self.score(self.model(self.images))
        handle.remove()
        return scores

    def legrad(self, target: int) -> Tensor:
        """(N, T), layer by layer."""
        maps = []
        for output, attention in zip(self.outputs, self.attention, strict=True):
            if self.pooling is not None:
                kept: list[Tensor] = []
                score = self.scores_of(output.detach(), kept)[:, target].sum()
                (pool,) = [a for a in kept if a.shape[-2] == 1]
                (gradient,) = torch.autograd.grad(score, pool)
            else:
                mean = output.mean(self.axis, keepdim=True).expand_as(output)
                score = self.scores_of(mean)[:, target].sum()
                (gradient,) = torch.autograd.grad(score, attention, retain_graph=True)
            maps.append(gradient.clamp(min=0).mean(dim=(1, 2)))
        return torch.stack(maps).mean(dim=0)

    def generic(self, target: int, weights: Tensor) -> Tensor:
        """(N, T), by products of whole matrices from the first layer on."""
        sources = [*self.attention, *([] if self.pooling is None else [self.pooling])]
        gradients = torch.autograd.grad(self.scores[:, target].sum(), sources, retain_graph=True)
        means = [(g * a).clamp(min=0).mean(dim=1) for g, a in zip(gradients, sources, strict=True)]
        product = torch.eye(self.count).expand(len(self.images), -1, -1)
        for mean in means[: len(self.attention)]:
            product = product + mean @ product
        if self.pooling is not None:
            return (means[-1] @ product)[:, 0]
        return torch.einsum("nt,ntk->nk", weights, product) - weights

    def rollout(self, weights: Tensor) -> Tensor:
        """(N, T), by products of whole matrices from the first layer on."""
        identity = torch.eye(self.count)
        product = identity.expand(len(self.images), -1, -1)
        for attention in self.attention:
            product = (0.5 * attention.mean(dim=1) + 0.5 * identity) @ product
        if self.pooling is not None:
            return (self.pooling.mean(dim=1) @ product)[:, 0]
        return torch.einsum("nt,ntk->nk", weights, product)
