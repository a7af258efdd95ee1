"""The autograd graph from the scores back to the images: its paths and their common nodes.

A node is an operation that a forward pass recorded, and its successors are the operations whose
results it used: paths run from the scores to the images. Only the graph's structure is used here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Generic, TypeVar

from torch.autograd.graph import Node

V = TypeVar("V", bound=Hashable)

#: Names of operations that mix channels: convolutions and products. All others only select, scale,
#: add or resize existing channels.
_MIXING = (
    *("Convolution", "Mkldnn", "Cudnn", "Miopen", "Slow", "DeformConv", "QuantizedLinear"),
    *("Linear", "Mm", "Bmm", "Addmm", "Addbmm", "Baddbmm", "Mv", "Addmv", "Dot", "ScaledDot"),
)


def successors(node: Node) -> list[Node]:
    """Return the operations whose results a recorded operation used."""
    return [after for after, _ in node.next_functions if after is not None]


def mixes(node: Node) -> bool:
    """Return whether a recorded operation is a convolution or a product."""
    return node.name().startswith(_MIXING)


def walk(roots: Iterable[V], after: Callable[[V], Iterable[V]]) -> list[V]:
    """Return all nodes reachable from ``roots`` in topological order."""
    finished: list[V] = []
    seen: set[V] = set()
    for root in roots:
        if root in seen:
            continue
        seen.add(root)
        stack = [(root, iter(after(root)))]
        while stack:
            node, rest = stack[-1]
            for child in rest:
                if child not in seen:
                    seen.add(child)
                    stack.append((child, iter(after(child))))
                    break
            else:
                finished.append(node)
                stack.pop()
    return finished[::-1]


class Paths(Generic[V]):
    """All paths of an acyclic graph from some roots to one end.

    Args:
        roots: the nodes at which the paths start.
        end: the node at which they end.
        after: returns the successors of a node.

    Attributes:
        nodes: every node on a path, in topological order; empty if no root leads to the end.

    Example:
        >>> edges = {"score": ["head"], "head": ["left", "right"], "left": ["stem"]}
        >>> edges |= {"right": ["stem"], "stem": ["image"], "image": []}
        >>> paths = Paths(["score"], "image", edges.__getitem__)
        >>> paths.bottlenecks
        ['score', 'head', 'stem', 'image']
        >>> paths.beside("left")
        ['score', 'head', 'right', 'stem', 'image']
    """

    def __init__(self, roots: Sequence[V], end: V, after: Callable[[V], Iterable[V]]) -> None:
        # Only its wrapper keeps a Python node alive, and the wrapper's identity stands for it.
        self._reachable = walk(roots, after)
        leading: set[V] = set()
        for node in reversed(self._reachable):
            if node == end or any(child in leading for child in after(node)):
                leading.add(node)
        self.nodes = [node for node in self._reachable if node in leading]
        self._place = {node: place for place, node in enumerate(self.nodes)}
        self._roots = [root for root in dict.fromkeys(roots) if root in leading]
        self._end = end
        self._after = after

    def __contains__(self, node: object) -> bool:
        """Return whether a path leads through the node."""
        return node in self._place

    @functools.cached_property
    def bottlenecks(self) -> list[V]:
        """The nodes that lie on every path, from the roots to the end.

        As each node here is on some path, a node lies on every path exactly if no edge leads from a
        node before it in topological order to a node after it.
        """
        common: list[V] = []
        furthest = max((self._place[root] for root in self._roots), default=0)
        for place, node in enumerate(self.nodes):
            if furthest <= place:
                common.append(node)
            furthest = max([furthest, *(self._place[child] for child in self._onward(node))])
        return common

    def beside(self, node: V) -> list[V]:
        """Return the nodes on the paths that avoid ``node``; empty if it is a bottleneck."""
        detours = Paths(
            [root for root in self._roots if root != node],
            self._end,
            lambda other: (child for child in self._onward(other) if child != node),
        )
        return detours.nodes

    def _onward(self, node: V) -> list[V]:
        return [child for child in self._after(node) if child in self._place]
