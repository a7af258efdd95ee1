"""Find a model's attention blocks: which call of attention is whose, and which token is where.

Nothing is taken from names. A block is a module that makes one call of attention and returns
tokens of the shape it was given; blocks follow one another where the next is given what the last
one returned; of several such chains, as of an image and a text, the image's is the one whose last
output is measured to be a map of the images. That a token keeps its place from a block's input to
its queries and keys is measured too, by changing one.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..intercept.attention import REMEDY, by_head
from ..intercept.watching import AttentionWatch
from ..layouts import Layout, read
from ..model import named, resolve_all
from ..probe import Probe
from ..probe.captures import first_tensor, replace_first
from ..probe.hooks import in_evaluation
from .measured import MeasuredLayers, inputs_key

#: So many images are looked at, where the model takes another number of them.
_ROWS = 2
#: Queries and keys that are looked at to see which tokens they are.
_SAMPLED = 8
#: Changes below this part of the largest are rounding.
_ROUNDING = 1e-3


@dataclasses.dataclass(frozen=True)
class Tokens:
    """The layout of a block's output as (N, C, tokens), prefix tokens and all."""

    batch: int
    channels: int
    axes: tuple[int, ...]

    def __call__(self, output: Tensor) -> Tensor:
        tokens: Tensor = output.permute(self.batch, self.channels, *self.axes).flatten(2)
        return tokens


@dataclasses.dataclass(frozen=True)
class AttentionBlocks:
    """A chain of blocks that all the image's tokens pass.

    Attributes:
        names: of the blocks, in their order.
        calls: the number of each block's call of attention.
        pooling: the number of the call that pools the last block's tokens; None: none does.
        tokens: how to read a block's output as (N, C, tokens).
        places: (cells,) int64: the token of each cell of the grid.
        count: number of tokens.
        grid: cells along each axis of the image.
        proven: see :class:`camlens.geometry.Reading`.
    """

    names: tuple[str, ...]
    calls: tuple[int, ...]
    pooling: int | None
    tokens: Tokens
    places: Tensor
    count: int
    grid: tuple[int, ...]
    proven: bool

    def last(self, count: int | None) -> AttentionBlocks:
        """Return the last so many blocks; None: all.

        Raises:
            ValueError: there are not so many.
        """
        if count is None:
            return self
        if count > len(self.names):
            raise ValueError(f"expected at most last={len(self.names)} blocks, got {count}")
        return dataclasses.replace(self, names=self.names[-count:], calls=self.calls[-count:])


@dataclasses.dataclass(frozen=True, eq=False)
class _Call:
    """One call of a module: its first tensors, and the calls of attention that it made."""

    name: str
    given: Tensor | None
    output: Tensor | None
    first: int
    end: int

    @property
    def keeps_shape(self) -> bool:
        given, output = self.given, self.output
        return (
            given is not None
            and output is not None
            and given.shape == output.shape
            and output.ndim in (3, 4)
        )


class _Watched:
    """One run of a model: its modules' calls and its calls of attention.

    Args:
        probe: of the images that run.
        changed: outputs to put in the place of modules' own.
    """

    def __init__(self, probe: Probe, changed: Mapping[str, Tensor] | None = None) -> None:
        self.changed = dict(changed or {})
        self.calls: list[_Call] = []
        self.shapes: dict[int, tuple[int, ...]] = {}
        #: Rows and columns of some tokens, (N, heads, some, T) and (N, heads, T, some).
        self.samples: dict[int, tuple[Tensor, Tensor]] = {}
        self.images = len(probe.images)
        self._open: list[tuple[str, Tensor | None, int]] = []
        self.watch = AttentionWatch(self._look)
        names = [
            name
            for name, module in named(probe.model).items()
            if not isinstance(module, torch.jit.ScriptModule)
        ]
        with torch.no_grad():
            probe.execute(names, self._leave, mode=self.watch, enter=self._enter)
        self.attention = sorted(self.watch.attention)

    def _enter(self, name: str, inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        tensors = (
            value
            for value in (*inputs, *keywords.values())
            if isinstance(value, Tensor) and value.is_floating_point()
        )
        given = next(tensors, None)
        kept = None if given is None or given.ndim not in (3, 4) else given.clone()
        self._open.append((name, kept, self.watch.count))

    def _leave(self, name: str, inputs: tuple[Any, ...], output: Any) -> Any:
        _, given, first = self._open.pop()
        tensor = first_tensor(output)
        replaced = self.changed.get(name)
        kept = given is not None and tensor is not None and given.shape == tensor.shape
        self.calls.append(
            _Call(
                name,
                given if kept else None,
                tensor.clone() if kept and tensor is not None else None,
                first,
                self.watch.count,
            )
        )
        return None if replaced is None else replace_first(output, replaced)

    def _look(self, call: int, logits: Tensor) -> None:
        self.shapes[call] = tuple(logits.shape)
        if logits.shape[0] % self.images or logits.ndim not in (3, 4):
            return
        heads = by_head(logits, self.images)
        some = sampled(heads.shape[-1])
        if heads.shape[-1] == heads.shape[-2]:
            self.samples[call] = heads[:, :, some].clone(), heads[:, :, :, some].clone()


def sampled(count: int) -> list[int]:
    """Return the positions of a few of ``count`` tokens."""
    return sorted({round(i * (count - 1) / (_SAMPLED - 1)) for i in range(_SAMPLED)})


class MeasuredBlocks:
    """The attention blocks of one model, measured once for each shape of inputs."""

    def __init__(self, layers: MeasuredLayers) -> None:
        self._layers = layers
        self._found: dict[Any, AttentionBlocks] = {}
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what can be measured again."""
        return {"_layers": self._layers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start with nothing measured."""
        self.__init__(state["_layers"])  # type: ignore[misc]

    def find(
        self, probe: Probe, blocks: Sequence[str | nn.Module] | None = None
    ) -> AttentionBlocks:
        """Return the blocks of the image's tokens.

        Args:
            probe: the call.
            blocks: the blocks; None: found.

        Raises:
            ValueError: there are none, or not one chain of them, or their attention is no map
                from tokens to tokens of the image.
        """
        names = None if blocks is None else resolve_all(probe.model, blocks)
        key = inputs_key(probe), names
        if key not in self._found:
            with self._lock:
                if key not in self._found:
                    self._found[key] = in_evaluation(
                        probe.model, lambda: _find(probe, names, self._layers)
                    )
        return self._found[key]


def _find(
    probe: Probe, names: tuple[str, ...] | None, layers: MeasuredLayers
) -> AttentionBlocks:
    part, run = _watched(probe)
    if not run.attention:
        raise ValueError(
            "no attention was seen: neither F.scaled_dot_product_attention, nor "
            "nn.MultiheadAttention, nor a softmax whose result weighs values (as it comes, not "
            f"mixed between heads); {REMEDY}"
        )
    every = _chains(run) if names is None else [_given(run, names)]
    chains = every if names is not None else _of_images(part, run, every)
    if len(chains) != 1:
        raise ValueError(_not_one(run, chains))
    (chain,) = chains
    if len({call.name for call in chain}) < len(chain):
        raise ValueError(
            f"the block {chain[0].name!r} runs several times in one forward pass; {REMEDY}"
        )
    last = chain[-1].name
    reading = layers.readings(probe, [last])[last]
    if reading.layout is None or chain[-1].output is None:
        raise ValueError(reading.reason)
    tokens, places = _tokens(chain[-1], reading.layout, run.images)
    count = tokens(chain[-1].output).shape[2]
    calls = []
    for call in chain:
        (own,) = [i for i in run.attention if call.first <= i < call.end]
        _check_shape(call.name, run.shapes[own], run.images, count)
        calls.append(own)
    _check_order(part, run, chain, calls, tokens, places)
    pooling = _pooling(run, chain, calls, count)
    if names is None:
        _check_all(run, every, pooling)
    return AttentionBlocks(
        names=tuple(call.name for call in chain),
        calls=tuple(calls),
        pooling=pooling,
        tokens=tokens,
        places=places,
        count=count,
        grid=reading.grid,
        proven=reading.proven,
    )


def _watched(probe: Probe) -> tuple[Probe, _Watched]:
    """Watch a run of the first images, or of all if the model needs that."""
    if not probe.inputs and not probe.keywords and len(probe.images) > _ROWS:
        part = Probe(probe.model, probe.images[:_ROWS])
        try:
            return part, _Watched(part)
        except Exception:  # noqa: S110  a model may take no other number, and fail in any way
            pass
    part = Probe(probe.model, probe.images, probe.inputs, probe.keywords)
    return part, _Watched(part)


def _chains(run: _Watched) -> list[list[_Call]]:
    """Return the blocks that hand on tokens to one another."""
    blocks = []
    for attention in run.attention:
        around = [c for c in run.calls if c.first <= attention < c.end]
        own = [
            c
            for c in around
            if c.keeps_shape and sum(c.first <= i < c.end for i in run.attention) == 1
        ]
        shape = run.shapes[attention]
        if not own or shape[-1] != shape[-2]:
            continue
        if len(run.attention) > 1 or len(own) == 1:
            blocks.append(own[-1])  # the outermost
            continue
        listed = [c for c in own if c.name.rpartition(".")[2].isdigit()]
        if len(listed) != 1:
            raise ValueError(
                f"the only attention of the model lies in each of {[c.name for c in own]}: name "
                "the block whose output holds the tokens, as in blocks=[...]"
            )
        blocks.append(listed[0])
    chains: list[list[_Call]] = []
    for block in blocks:
        before = chains[-1][-1].output if chains else None
        given = block.given
        if (
            before is not None
            and given is not None
            and before.shape == given.shape
            and torch.equal(before, given)
        ):
            chains[-1].append(block)
        else:
            chains.append([block])
    return chains


def _given(run: _Watched, names: Sequence[str]) -> list[_Call]:
    """Return the calls of blocks that were named."""
    chain = [call for call in run.calls if call.name in names]
    for name in names:
        own = [call for call in chain if call.name == name]
        inside = [i for call in own for i in run.attention if call.first <= i < call.end]
        if len(own) != 1 or len(inside) != 1 or not own[0].keeps_shape:
            raise ValueError(
                f"expected the block {name!r} to run once, to make one call of attention and to "
                f"return the shape it is given; it ran {len(own)} times with {len(inside)} calls"
            )
    for before, after in zip(chain, chain[1:], strict=False):
        if before.output is None or after.given is None or not _same(before.output, after.given):
            raise ValueError(
                f"the block {after.name!r} is not given what {before.name!r} returns: name "
                "blocks that follow one another"
            )
    return chain


def _same(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and torch.equal(first, second)


def _of_images(
    probe: Probe, run: _Watched, chains: Sequence[list[_Call]]
) -> list[list[_Call]]:
    """Return the chains that change with the images, which those of a text do not."""
    changed = Probe(probe.model, probe.images.flip(-1).neg(), probe.inputs, probe.keywords)
    outputs = {call.name: call.output for call in _Watched(changed).calls}

    def constant(call: _Call) -> bool:
        output = outputs.get(call.name)
        return call.output is not None and output is not None and _same(call.output, output)

    return [chain for chain in chains if not constant(chain[-1])]


def _not_one(run: _Watched, chains: Sequence[Sequence[_Call]]) -> str:
    if chains:
        text = "; ".join(f"{c[0].name!r} to {c[-1].name!r} {_shape(c[-1])}" for c in chains[:4])
        return (
            f"the attention blocks do not follow one another but form {len(chains)} groups "
            f"({text}), as in hierarchical and windowed transformers and in several towers, so "
            f"there is no map from the last tokens to the image's; {REMEDY}. If one "
            "group alone is meant, name its blocks, as in blocks=[...]"
        )
    queries, keys = run.shapes[run.attention[-1]][-2:]
    return (
        "no module makes one call of attention and returns tokens of the shape it is given (the "
        f"last attention has {queries} queries and {keys} keys), so there is no map from tokens "
        f"to tokens; {REMEDY}"
    )


def _shape(call: _Call) -> tuple[int, ...]:
    return () if call.output is None else tuple(call.output.shape)


def _check_shape(name: str, shape: tuple[int, ...], images: int, count: int) -> None:
    whole = (len(shape) == 4 and shape[0] == images) or len(shape) == 3
    if whole and shape[-2:] == (count, count):
        return
    raise ValueError(
        f"the block {name!r} has {count} tokens, but its attention is {shape} for {images} images: "
        "within windows, over channels or of reduced tokens, which is no map from tokens to tokens "
        f"of the whole image; {REMEDY}"
    )


def _tokens(call: _Call, layout: Layout, images: int) -> tuple[Tokens, Tensor]:
    """Return how to read a block's output as tokens, and the token of each cell."""
    output = call.output
    if output is None:
        raise ValueError(f"the block {call.name!r} returns no tensor")
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


def _check_order(
    probe: Probe,
    run: _Watched,
    chain: Sequence[_Call],
    calls: Sequence[int],
    tokens: Tokens,
    places: Tensor,
) -> None:
    """Check that one changed token of a block's input is one changed query and key, its own."""
    token = int(places[len(places) // 3])
    changed = {}
    for call in chain[:-1]:
        if call.output is not None:
            output = call.output.clone()
            generator = torch.Generator().manual_seed(0)
            row = tokens(output)[:, :, token]
            noise = torch.randn(row.shape, generator=generator).to(row)
            view = output.permute(tokens.batch, tokens.channels, *tokens.axes)
            position = torch.unravel_index(torch.tensor(token), view.shape[2:])
            view[(slice(None), slice(None), *map(int, position))] += noise * output.std()
            changed[call.name] = output
    again = _Watched(probe, changed)
    for call, number in list(zip(chain, calls, strict=True))[1:]:
        if number not in again.samples or number not in run.samples:
            raise ValueError(
                f"the attention of block {call.name!r} changes with its values; {REMEDY}"
            )
        before, after = run.samples[number], again.samples[number]
        rows, columns = (
            (a - b).nan_to_num().abs().amax(dim=(0, 1)) for a, b in zip(after, before, strict=True)
        )
        some = torch.tensor(sampled(columns.shape[0]), device=rows.device)
        beside = rows[some != token].clone()
        queries = columns[:, some != token].clone()
        largest = torch.maximum(beside.amax(), queries.amax())
        own = torch.minimum(beside[:, token].amax(), queries[token].amax())
        beside[:, token] = 0
        queries[token] = 0
        others = torch.maximum(beside.amax(), queries.amax())
        if not own > 0 or others > _ROUNDING * largest:
            raise ValueError(
                f"a change of token {token} of the input of block {call.name!r} is not one of "
                f"query and key {token} alone: its attention is over channels, or orders tokens "
                f"anew, or mixes them before, so it is no map from tokens to tokens; {REMEDY}"
            )


def _check_all(run: _Watched, chains: Sequence[Sequence[_Call]], pooling: int | None) -> None:
    """Check that no attention but the blocks' and the pooling's was seen."""
    spans = [(call.first, call.end) for chain in chains for call in chain]
    for number in run.attention:
        if number != pooling and not any(first <= number < end for first, end in spans):
            queries, keys = run.shapes[number][-2:]
            where = [c.name for c in run.calls if c.first <= number < c.end]
            raise ValueError(
                f"the model also attends in {where[0] if where else 'its forward'!r} ({queries} "
                f"queries, {keys} keys), beside the blocks that hand on tokens to one another, so "
                f"there is no map from the last tokens to the image's; {REMEDY}"
            )


def _pooling(
    run: _Watched, chain: Sequence[_Call], calls: Sequence[int], count: int
) -> int | None:
    """Return the number of the call that pools the last block's tokens, if one does."""
    images = run.images
    after = [
        call
        for call in run.attention
        if call > calls[-1]
        and run.shapes[call][-1] == count
        and run.shapes[call][-2] != count
        and run.shapes[call][0] % images == 0
    ]
    if len(after) > 1:
        raise ValueError(
            f"{len(after)} calls of attention read the tokens of the last block "
            f"{chain[-1].name!r}: expected one that pools them, or none; {REMEDY}"
        )
    return after[0] if after else None
