"""Chains of attention blocks: each receives the tokens that the one before it returned."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from ..intercept.attention_by_definition import REMEDY
from ..probe import Probe
from .attention_run import AttentionRun, BlockCall


def chains_of(run: AttentionRun) -> list[list[BlockCall]]:
    """Return the chains of blocks that pass tokens to one another."""
    blocks = []
    for attention in run.attention:
        enclosing = [c for c in run.calls if c.first <= attention < c.end]
        candidates = [
            c
            for c in enclosing
            if c.keeps_shape and sum(c.first <= i < c.end for i in run.attention) == 1
        ]
        shape = run.shapes[attention]
        if not candidates or shape[-1] != shape[-2]:
            continue
        if len(run.attention) > 1 or len(candidates) == 1:
            blocks.append(candidates[-1])  # the outermost
            continue
        listed = [c for c in candidates if c.name.rpartition(".")[2].isdigit()]
        if len(listed) != 1:
            raise ValueError(
                f"the model's only attention is inside each of {[c.name for c in candidates]}, so "
                "camlens cannot tell which one is the block: name the one whose output holds the "
                "tokens, as in blocks=[...]"
            )
        blocks.append(listed[0])
    chains: list[list[BlockCall]] = []
    for block in blocks:
        tokens = block.received
        if chains and tokens is not None and same(chains[-1][-1].tensor(), tokens):
            chains[-1].append(block)
        else:
            chains.append([block])
    return chains


def named_chain(run: AttentionRun, names: Sequence[str]) -> list[BlockCall]:
    """Return the calls of the named blocks.

    Raises:
        ValueError: one is not a block, or they do not follow one another.
    """
    chain = [call for call in run.calls if call.name in names]
    for name in names:
        calls = [call for call in chain if call.name == name]
        inside = [i for call in calls for i in run.attention if call.first <= i < call.end]
        if len(calls) != 1 or len(inside) != 1 or not calls[0].keeps_shape:
            raise ValueError(
                f"expected the block {name!r} to run once, to make one call of attention and to "
                f"return the shape it receives, but it ran {len(calls)} times with {len(inside)} "
                "such calls: name modules that make one call of attention each"
            )
    for before, after in itertools.pairwise(chain):
        if after.received is None or not same(before.tensor(), after.received):
            raise ValueError(
                f"the block {after.name!r} does not receive what {before.name!r} returns: name "
                "blocks that follow one another"
            )
    return chain


def same(first: Tensor, second: Tensor) -> bool:
    """Return whether two tensors have equal shapes and values."""
    return first.shape == second.shape and torch.equal(first, second)


def of_images(
    probe: Probe, run: AttentionRun, chains: Sequence[list[BlockCall]]
) -> list[list[BlockCall]]:
    """Return the chains whose outputs change with the images, which excludes those of a text."""
    changed = Probe(probe.model, probe.images.flip(-1).neg(), probe.inputs, probe.keywords)
    outputs = {call.name: call.output for call in AttentionRun(changed).calls}

    def constant(call: BlockCall) -> bool:
        output = outputs.get(call.name)
        return call.output is not None and output is not None and same(call.output, output)

    return [chain for chain in chains if not constant(chain[-1])]


def not_one(run: AttentionRun, chains: Sequence[Sequence[BlockCall]]) -> str:
    """Return the error message for no chain, or several chains, of the images."""
    if chains:
        groups = [
            f"{chain[0].name!r} to {chain[-1].name!r} {tuple(chain[-1].tensor().shape)}"
            for chain in chains[:4]
        ]
        return (
            f"the attention blocks do not follow one another but form {len(chains)} groups "
            f"({'; '.join(groups)}), as in hierarchical and windowed transformers and in several "
            f"towers; {REMEDY}. To explain one group, name its blocks, as in blocks=[...]"
        )
    queries, keys = run.shapes[run.attention[-1]][-2:]
    return (
        "no module makes one call of attention and returns tokens of the shape it receives (the "
        f"last attention has {queries} queries and {keys} keys), so there is no map from tokens "
        f"to tokens; {REMEDY}"
    )
