"""Paths and bottlenecks of graphs, against taking each node out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from camlens.layers.graph import Paths, mixes, successors, walk


def reachable(edges, roots, without=None):
    """All nodes that the roots lead to, the slow way."""
    queue, seen = [r for r in roots if r != without], set()
    while queue:
        node = queue.pop()
        seen.add(node)
        queue += [child for child in edges[node] if child not in seen and child != without]
    return seen


@st.composite
def graphs(draw):
    """Edges of an acyclic graph, each from a smaller to a larger node, and some roots."""
    count = draw(st.integers(1, 9))
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    edges = {node: [b for a, b in chosen if a == node] for node in range(count)}
    return edges, draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=3))


@given(graphs())
def test_a_node_is_a_bottleneck_if_without_it_the_end_is_out_of_reach(graph):
    edges, roots = graph
    end = len(edges) - 1
    paths = Paths(roots, end, edges.__getitem__)
    if end not in reachable(edges, roots):
        assert paths.nodes == paths.bottlenecks == []
        return
    expected = {n for n in edges if end not in reachable(edges, roots, without=n)}
    assert set(paths.bottlenecks) == expected
    on_paths = {n for n in reachable(edges, roots) if end in reachable(edges, [n])}
    assert set(paths.nodes) == on_paths
    assert all((n in paths) == (n in on_paths) for n in edges)
    for n in edges:
        detour = Paths([r for r in roots if r != n], end, lambda a, n=n: set(edges[a]) - {n})
        assert set(paths.beside(n)) == set(detour.nodes)


@given(graphs())
def test_a_walk_is_in_topological_order(graph):
    edges, roots = graph
    order = walk(roots, edges.__getitem__)
    assert set(order) == reachable(edges, roots)
    assert len(order) == len(set(order))
    place = {node: i for i, node in enumerate(order)}
    assert all(place[a] < place[b] for a in order for b in edges[a])


@pytest.mark.slow
def test_a_chain_of_ten_thousand_nodes_needs_no_recursion():
    paths = Paths([0], 9_999, lambda n: [n + 1] if n < 9_999 else [])
    assert len(paths.bottlenecks) == 10_000


@pytest.mark.parametrize("residual", [False, True])
def test_nodes_of_autograd(residual):
    image = torch.rand(1, 2, 4, 4, requires_grad=True)
    stem = image.clone()
    branch = (stem * 2).clone()
    block = (stem + branch if residual else branch + 1).clone()
    paths = Paths([block.sum().grad_fn], stem.grad_fn, successors)
    assert block.grad_fn in paths.bottlenecks
    assert branch.grad_fn in paths
    assert (branch.grad_fn in paths.bottlenecks) is not residual


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (nn.Conv2d(3, 2, 1), True),
        (nn.ConvTranspose2d(3, 2, 2), True),
        (nn.Linear(4, 2), True),
        (lambda x: x @ torch.rand(4, 4), True),
        (nn.functional.softmax, False),
        (nn.UpsamplingBilinear2d(8), False),
        (nn.AvgPool2d(2), False),
        (lambda x: x[:, 1].mean(), False),
        (lambda x: x * torch.rand(3, 1, 1) + x, False),
    ],
)
def test_operations_that_mix_channels(operation, expected):
    arguments = {"dim": 1} if operation is nn.functional.softmax else {}
    out = operation(torch.rand(1, 3, 4, 4, requires_grad=True), **arguments)
    assert any(mixes(node) for node in walk([out.grad_fn], successors)) is expected
