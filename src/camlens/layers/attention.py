"""Finds a model's attention blocks, and the position of each token in the image.

The search does not use names. A block is a module that calls attention once and returns tokens of
the shape that it received. Blocks form a chain if each receives what the one before it returned. If
there are several chains, as for an image and a text, the image's is the one whose outputs change
with the images. To check that tokens keep their order from a block's input to its queries and keys,
one token is changed.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..intercept.attention_by_definition import REMEDY
from ..model import resolve_all
from ..probe import Probe
from ..probe.hooks import in_evaluation
from ..registration import Span
from .attention_run import AttentionRun, BlockCall, watched_run
from .chains import chains_of, named_chain, not_one, of_images
from .evidence import Evidence
from .measurement_cache import MeasuredLayers, inputs_key
from .tokens import Tokens, check_order, check_rows, token_layout
from .trace import trace


@dataclasses.dataclass(frozen=True)
class AttentionBlocks:
    """The chain of attention blocks that the image's tokens pass through.

    Attributes:
        names: the blocks' names, in order.
        calls: the index of each block's call of attention in a forward pass, see
            :class:`camlens.intercept.AttentionProbabilities`.
        pooling: the index of the call that pools the last block's tokens; None if there is none.
        tokens: turns a block's output into (N, C, tokens).
        places: (cells,) int64, the index of each cell's token.
        count: number of tokens, including class tokens and registers.
        grid: cells along each axis of the image.
        proven: whether a measurement showed that each cell responds to its own place.
        span: the part of the image that the grid covers, see :class:`camlens.Registration`.
    """

    names: tuple[str, ...]
    calls: tuple[int, ...]
    pooling: int | None
    tokens: Tokens
    places: Tensor
    count: int
    grid: tuple[int, ...]
    proven: bool
    span: Span | None

    def last(self, count: int | None) -> AttentionBlocks:
        """Return the last ``count`` blocks, or all if it is None.

        Raises:
            ValueError: there are fewer.
        """
        if count is None:
            return self
        if count > len(self.names):
            raise ValueError(f"expected at most last={len(self.names)} blocks, got {count}")
        return dataclasses.replace(self, names=self.names[-count:], calls=self.calls[-count:])


class MeasuredBlocks:
    """The attention blocks of one model, found once for each shape of inputs."""

    def __init__(self, layers: MeasuredLayers) -> None:
        self._layers = layers
        self._found: dict[Any, AttentionBlocks] = {}
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        """Omit the blocks found so far, which can be measured again."""
        return {"_layers": self._layers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start without measured blocks."""
        self.__init__(state["_layers"])  # type: ignore[misc]

    def find(
        self, probe: Probe, blocks: Sequence[str | nn.Module] | None = None
    ) -> AttentionBlocks:
        """Return the blocks of the image's tokens.

        Args:
            probe: the call's model, images and targets.
            blocks: the blocks, as names or modules; None: search for them.

        Raises:
            ValueError: there are no blocks or several chains of them, or their attention is not a
                map from tokens to tokens of the image.
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


def _find(probe: Probe, names: tuple[str, ...] | None, layers: MeasuredLayers) -> AttentionBlocks:
    part, run = watched_run(probe)
    if not run.attention:
        raise ValueError(
            "expected a model with attention, but no attention was seen: neither "
            "F.scaled_dot_product_attention, nor nn.MultiheadAttention, nor a softmax whose result "
            f"directly weights values in a product; {REMEDY}"
        )
    every = chains_of(run) if names is None else [named_chain(run, names)]
    chains = every if names is not None else of_images(part, run, every)
    if len(chains) != 1:
        raise ValueError(not_one(run, chains))
    (chain,) = chains
    last = chain[-1]
    if len({call.name for call in chain}) < len(chain):
        raise ValueError(
            f"the block {last.name!r} runs several times in one forward pass; {REMEDY}"
        )
    reading = layers.readings(probe, [last.name])[last.name]
    if reading.layout is None:
        raise ValueError(reading.reason)
    tokens, places = token_layout(last, reading.layout, run.images)
    count = tokens(last.tensor()).shape[2]
    for call in chain:
        _check_shape(call.name, run.shapes[run.attention_of(call)], run.images, count)
    check_rows(part, run, chain)
    check_order(part, run, chain, tokens, int(places[len(places) // 3]))
    pooling = _pooling(run, last, count)
    if names is None:
        _check_all(run, every, pooling)
        _check_evidence(probe, part, last)
    return AttentionBlocks(
        names=tuple(call.name for call in chain),
        calls=tuple(run.attention_of(call) for call in chain),
        pooling=pooling,
        tokens=tokens,
        places=places,
        count=count,
        grid=reading.grid,
        proven=reading.proven,
        span=reading.span,
    )


def _check_shape(name: str, shape: tuple[int, ...], images: int, count: int) -> None:
    whole = shape[0] == images if len(shape) == 4 else shape[0] % images == 0
    if len(shape) not in (3, 4):
        raise ValueError(
            f"expected the attention of the block {name!r} as (N, heads, tokens, tokens) or (N * "
            f"heads, tokens, tokens), got {shape}; {REMEDY}"
        )
    if whole and shape[-2:] == (count, count):
        return
    raise ValueError(
        f"the block {name!r} has {count} tokens, but its attention is {shape} for {images} images: "
        "it is within windows, over channels or over fewer tokens, so it is no map from tokens to "
        f"tokens of the whole image; {REMEDY}"
    )


def _check_all(
    run: AttentionRun, chains: Sequence[Sequence[BlockCall]], pooling: int | None
) -> None:
    """Check that all attention belongs to the blocks or pools their tokens."""
    spans = [(call.first, call.end) for chain in chains for call in chain]
    for number in run.attention:
        if number != pooling and not any(first <= number < end for first, end in spans):
            queries, keys = run.shapes[number][-2:]
            where = [c.name for c in run.calls if c.first <= number < c.end]
            raise ValueError(
                f"the model also attends in {where[0] if where else 'its forward'!r} ({queries} "
                f"queries, {keys} keys), outside the blocks that pass tokens to one another, so "
                f"there is no map from the last tokens to the image's; {REMEDY}"
            )


def _check_evidence(probe: Probe, part: Probe, last: BlockCall) -> None:
    """Check that all evidence for the scores passes through the last block.

    A callable target may hold values of each image, so it gets all of them.
    """
    if not callable(probe.targets):
        probe = Probe(part.model, part.images, part.inputs, part.keywords, "all")
    traced = trace(probe)
    evidence = Evidence(traced)
    call = next((call for call in traced.last_calls() if call.name == last.name), None)
    if call is not None and not evidence.all_through(call):
        other = evidence.detour(call)
        raise ValueError(
            f"some evidence bypasses the last block {last.name!r}"
            + (f", through {other!r}" if other else "")
            + ", so a map of the blocks' attention shows only a part: to explain that part, name "
            "the blocks, as in blocks=[...]"
        )


def _pooling(run: AttentionRun, last: BlockCall, count: int) -> int | None:
    """Return the index of the call that pools the last block's tokens, or None."""
    after = [
        number
        for number in run.attention
        if number >= last.end
        and run.shapes[number][-1] == count
        and run.shapes[number][-2] != count
        and run.shapes[number][0] % run.images == 0
    ]
    if len(after) > 1:
        raise ValueError(
            f"expected at most one call of attention that pools the tokens of the last block "
            f"{last.name!r}, got {len(after)}; {REMEDY}"
        )
    return after[0] if after else None
