"""Which value of a block's output is which token's, and whether its attention keeps their order."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from ..intercept.definitions import REMEDY
from ..layouts import Layout, read
from ..probe import Probe
from .attention_run import AttentionRun, BlockCall, sampled

#: Changes below this part of the largest are rounding.
_ROUNDING = 1e-3
#: A logit below is that of a key that is masked out.
_HIDDEN = -5e3


@dataclasses.dataclass(frozen=True)
class Tokens:
    """The layout of a block's output as (N, C, tokens), prefix tokens and all."""

    batch: int
    channels: int
    axes: tuple[int, ...]

    def __call__(self, output: Tensor) -> Tensor:
        """Return (N, C, tokens)."""
        tokens: Tensor = output.permute(self.batch, self.channels, *self.axes).flatten(2)
        return tokens

    def changed(self, output: Tensor, token: int) -> Tensor:
        """Return a copy in which one token has noise of the output's own size added."""
        copy = output.clone()
        view = copy.permute(self.batch, self.channels, *self.axes)
        place = torch.unravel_index(torch.tensor(token, device=copy.device), view.shape[2:])
        index: tuple[slice | Tensor, ...] = (slice(None), slice(None), *place)
        row = view[index]
        noise = torch.randn(row.shape, generator=torch.Generator().manual_seed(0))
        view[index] = row + noise.to(copy) * copy.std()
        return copy


def token_layout(call: BlockCall, layout: Layout, images: int) -> tuple[Tokens, Tensor]:
    """Return how to read a block's output as tokens, and the token of each cell."""
    output = call.tensor()
    numbers = torch.arange(output.numel(), device=output.device).view(output.shape)
    cells = read(numbers, layout, call.name, images)
    where = torch.stack(torch.unravel_index(cells, output.shape))  # (dimensions, N, C, *grid)
    if cells.shape[1] < 2:
        raise ValueError(f"the block {call.name!r} has tokens of one channel; {REMEDY}")
    channels = int((where[:, 0, 1].flatten(1)[:, 0] != where[:, 0, 0].flatten(1)[:, 0]).nonzero())
    over = (where[:, 0, 0].flatten(1) != where[:, 0, 0].flatten(1)[:, :1]).any(dim=1)
    axes = tuple(over.nonzero().flatten().tolist())
    rest = [d for d in range(output.ndim) if d != channels and d not in axes]
    tokens = Tokens(rest[0] if rest else 0, channels, axes)
    if len(rest) != 1:
        raise ValueError(
            f"the block {call.name!r} gives {tuple(output.shape)}, of which images, channels and "
            f"tokens cannot be told apart; {REMEDY}"
        )
    index = tokens(numbers)  # (N, C, T): which value is whose
    order = torch.full((output.numel(),), -1, device=output.device)
    order[index[0, 0]] = torch.arange(index.shape[2], device=output.device)
    places = order[cells[0, 0].flatten()]
    expected = index[:, :, places].view_as(cells)
    if bool((places < 0).any()) or not torch.equal(expected, cells):
        raise ValueError(
            f"the block {call.name!r} gives {tuple(output.shape)}, whose layout is no order of "
            f"tokens that all images share; {REMEDY}"
        )
    return tokens, places.cpu()


def check_order(
    probe: Probe, run: AttentionRun, chain: Sequence[BlockCall], tokens: Tokens, token: int
) -> None:
    """Check that one changed token of a block's input is one changed query and key, its own.

    The first block is not looked at: what it is given is not a block's output, which is changed.

    Raises:
        ValueError: it is not.
    """
    changed = {call.name: tokens.changed(call.tensor(), token) for call in chain[:-1]}
    again = AttentionRun(probe, changed)
    for call in chain[1:]:
        number = run.attention_of(call)
        before, after = run.samples[number], again.samples[number]
        # Of a few queries all keys, of all queries a few keys: their change by the other token.
        queries, keys = (
            (a - b).nan_to_num().abs().amax(dim=(0, 1)) for a, b in zip(after, before, strict=True)
        )
        # What a mask hides, by -inf or a large number, does not show a change.
        seen_queries, seen_keys = ((b > _HIDDEN).any(dim=1).any(dim=0) for b in before)
        some = torch.tensor(sampled(keys.shape[0]), device=keys.device)
        others = some != token
        table = torch.cat([queries[others], keys.T[others]])  # (.., T)
        seen = torch.cat([seen_queries[others], seen_keys.T[others]])[:, token]
        largest = table.amax()
        own = table[:, token][seen]
        table[:, token] = 0
        if not (own > 0).all() or not len(own) or table.amax() > _ROUNDING * largest:
            raise ValueError(
                f"a change of token {token} of the input of block {call.name!r} is not one of "
                f"query and key {token} alone: its attention is over channels, or orders tokens "
                f"anew, or mixes them before, so it is no map from tokens to tokens; {REMEDY}"
            )
