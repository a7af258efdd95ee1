"""Assigns the values of a block's output to tokens, and checks that attention keeps their order."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from ..intercept.attention_by_definition import REMEDY
from ..layouts import Layout, read
from ..probe import Probe
from .attention_run import AttentionRun, BlockCall, sampled

#: Changes below this fraction of the largest change count as rounding.
_ROUNDING = 1e-3
#: A logit below this belongs to a masked key.
_HIDDEN = -5e3


@dataclasses.dataclass(frozen=True)
class Tokens:
    """A layout that turns a block's output into (N, C, tokens), with class tokens and registers.

    Attributes:
        batch: dimension of the images in the output.
        channels: dimension of the channels.
        axes: dimensions of the tokens.
    """

    batch: int
    channels: int
    axes: tuple[int, ...]

    def __call__(self, output: Tensor) -> Tensor:
        """Return (N, C, tokens)."""
        tokens: Tensor = output.permute(self.batch, self.channels, *self.axes).flatten(2)
        return tokens

    def changed(self, output: Tensor, token: int) -> Tensor:
        """Return a copy with noise added to one token, with the output's standard deviation."""
        copy = output.clone()
        view = copy.permute(self.batch, self.channels, *self.axes)
        place = torch.unravel_index(torch.tensor(token, device=copy.device), view.shape[2:])
        index: tuple[slice | Tensor, ...] = (slice(None), slice(None), *place)
        row = view[index]
        generator = torch.Generator("cpu").manual_seed(0)
        noise = torch.randn(row.shape, generator=generator, device="cpu")
        view[index] = row + noise.to(copy) * copy.std()
        return copy


def token_layout(call: BlockCall, layout: Layout, images: int) -> tuple[Tokens, Tensor]:
    """Return the layout of a block's tokens, and the index of each cell's token.

    Raises:
        ValueError: the output cannot be turned into tokens.
    """
    output = call.tensor()
    numbers = torch.arange(output.numel(), device=output.device).view(output.shape)
    cells = read(numbers, layout, call.name, images)
    where = torch.stack(torch.unravel_index(cells, output.shape))  # (dimensions, N, C, *grid)
    if cells.shape[1] < 2:
        raise ValueError(
            f"the block {call.name!r} has tokens of a single channel, whose layout cannot be "
            f"measured; {REMEDY}"
        )
    channels = int((where[:, 0, 1].flatten(1)[:, 0] != where[:, 0, 0].flatten(1)[:, 0]).nonzero())
    over = (where[:, 0, 0].flatten(1) != where[:, 0, 0].flatten(1)[:, :1]).any(dim=1)
    axes = tuple(over.nonzero().flatten().tolist())
    rest = [d for d in range(output.ndim) if d != channels and d not in axes]
    tokens = Tokens(rest[0] if rest else 0, channels, axes)
    if len(rest) != 1:
        raise ValueError(
            f"the block {call.name!r} gives {tuple(output.shape)}, in which images, channels and "
            f"tokens cannot be told apart; {REMEDY}"
        )
    index = tokens(numbers)  # (N, C, T): the index of each token's values
    order = torch.full((output.numel(),), -1, device=output.device)
    order[index[0, 0]] = torch.arange(index.shape[2], device=output.device)
    places = order[cells[0, 0].flatten()]
    expected = index[:, :, places].view_as(cells)
    if bool((places < 0).any()) or not torch.equal(expected, cells):
        raise ValueError(
            f"the block {call.name!r} gives {tuple(output.shape)}, without one order "
            f"of tokens for all images; {REMEDY}"
        )
    return tokens, places.cpu()


def check_rows(probe: Probe, run: AttentionRun, chain: Sequence[BlockCall]) -> None:
    """Check that changing image 0 changes only the first image's attention.

    Attention with heads folded into its first dimension is read as (N * heads, ...); with heads
    before images, the rows of an image would be those of other images.

    Raises:
        ValueError: the attention of other images changes as well.
    """
    images = probe.images
    if len(images) == 1:
        if probe.inputs or probe.keywords:
            return
        # A later call may have more images of the same size.
        images = torch.cat([images, images])
        try:
            run = AttentionRun(Probe(probe.model, images))
        except Exception:  # a model may take single images only, and fail in any way
            return
    changed = images.clone()
    changed[0] = -changed[0].flip(-1)
    again = AttentionRun(Probe(probe.model, changed, probe.inputs, probe.keywords))
    for call in chain:
        number = run.attention_of(call)
        for before, after in zip(run.samples[number], again.samples[number], strict=True):
            moved = (after - before).nan_to_num().abs().flatten(1).amax(dim=1)
            if moved[1:].max() > _ROUNDING * moved[0]:
                raise ValueError(
                    f"changing the first image changes the attention of the others in the block "
                    f"{call.name!r}: its heads lie before the images, or its images depend on one "
                    f"another; {REMEDY}"
                )


def check_order(
    probe: Probe, run: AttentionRun, chain: Sequence[BlockCall], tokens: Tokens, token: int
) -> None:
    """Check that changing one token of a block's input changes only its query, key and value.

    Raises:
        ValueError: other queries, keys or values change as well.
    """
    changed = {c.name: tokens.changed(c.received, token) for c in chain if c.received is not None}
    again = AttentionRun(probe, changed)
    for call in chain:
        number = run.attention_of(call)
        before, after = run.samples[number], again.samples[number]
        # Changes of the logits of a few queries with all keys, and of all queries with a few keys.
        queries, keys = (
            (a - b).nan_to_num().abs().amax(dim=(0, 1)) for a, b in zip(after, before, strict=True)
        )
        # Logits that a mask hides, by -inf or a large negative number, show no change.
        seen_queries, seen_keys = ((b > _HIDDEN).any(dim=1).any(dim=0) for b in before)
        some = torch.tensor(sampled(keys.shape[0]), device=keys.device)
        others = some != token
        table = torch.cat([queries[others], keys.T[others]])  # (.., T)
        seen = torch.cat([seen_queries[others], seen_keys.T[others]])[:, token]
        products = zip(run.watch.values[number], again.watch.values[number], strict=True)
        values = torch.stack([(a - b).abs().flatten(1).amax(dim=1) for a, b in products])
        own = table[:, token][seen]
        alone = _alone(table, token) and _alone(values, token)
        if not alone or not len(own) or not (own > 0).all():
            raise ValueError(
                f"changing token {token} of the input of block {call.name!r} changes more than "
                f"query, key and value {token}: its attention is over channels, or reorders the "
                f"tokens, or mixes them first, so it is not a map from tokens to tokens; {REMEDY}"
            )


def _alone(changes: Tensor, token: int) -> bool:
    """Return whether only one token changes, in (.., T) sizes of changes."""
    others = changes.clone()
    others[:, token] = 0
    return bool(changes.amax() > 0 and others.amax() <= _ROUNDING * changes.amax())
