"""One traced forward pass of a model, with the captured outputs and their gradients."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from ..intercept import BackwardRule, Interception, Rule
from ..layouts import Layout, read
from ..model import quantized
from ..targets import Selection
from .derivatives import derivatives

#: Largest size in bytes of gradients that are computed together; larger ones are split by target.
CHUNK_BYTES = 32 * 2**20


@dataclasses.dataclass(frozen=True)
class Site:
    """A layer to capture, by name, and the layout to read its output as (N, C, *grid).

    Attributes:
        name: dotted name of the layer.
        layout: turns the layer's output into (N, C, *grid); None leaves it unchanged.
    """

    name: str
    layout: Layout | None = None


#: Operations that are linear in each of their operands, but not in two of them together.
_PRODUCTS = frozenset(["Mul", "Div", "Mm", "Bmm", "Addmm", "Linear", "Convolution"])


class Pass:
    """One traced forward pass: the model's output, the scores and the captured layers.

    Attributes:
        outputs: the model's output.
        selection: the (N, K) scores to explain, their classes and the model's logits.
        captured: outputs of the layers by name, in the layers' own shapes.
        sites: the captured layers, in the requested order.
    """

    def __init__(
        self,
        outputs: Any,
        selection: Selection,
        captured: Mapping[str, Tensor],
        sites: Sequence[Site],
        *,
        model: nn.Module,
        leaf: Tensor | None,
        mode: Interception | None,
    ) -> None:
        self.outputs = outputs
        self.selection = selection
        self.captured = dict(captured)
        self.sites = tuple(sites)
        self._model = model
        self._leaf = leaf
        self._rule = mode if isinstance(mode, BackwardRule) else None

    @property
    def scores(self) -> Tensor:
        """(N, K) scores to explain, part of the autograd graph."""
        return self.selection.scores

    def activations(self) -> list[Tensor]:
        """Return each site's output as (N, C, *grid), part of the autograd graph."""
        return [self._read(self.captured[site.name], site) for site in self.sites]

    def chunks(self) -> list[slice]:
        """Cut the K targets into slices whose gradients fit into ``CHUNK_BYTES``."""
        tensors = [self._leaf] if self._leaf is not None else list(self.captured.values())
        # The gradients of a few classes pass through the model's scores of all classes.
        outputs = self.scores if self.selection.logits is None else self.selection.logits
        widest = max(self.scores.numel(), outputs.numel())
        each = (sum(t.numel() for t in tensors if t is not None) + widest) * 4
        step = max(1, CHUNK_BYTES // each)
        return [slice(start, start + step) for start in range(0, self.scores.shape[1], step)]

    def gradients(
        self, targets: slice = slice(None), *, keep_graph: bool = False, create_graph: bool = False
    ) -> list[Tensor]:
        """Return the gradients of some of the K scores with respect to each site's output.

        Score n is assumed to depend on image n alone.

        Args:
            targets: the targets, out of K.
            keep_graph: whether to keep the graph for further passes.
            create_graph: whether the gradients will be differentiated again.

        Returns:
            For each site (N, K', C, *grid), with K' the number of targets.

        Raises:
            ValueError: the scores do not depend on a site.
        """
        names = [site.name for site in self.sites]
        sources = [self.captured[name] for name in names]
        rows = self._derivatives(
            sources, names, targets, keep_graph=keep_graph, create_graph=create_graph
        )
        return [self._rows_read(g, site) for g, site in zip(rows, self.sites, strict=True)]

    def image_gradients(
        self,
        targets: slice = slice(None),
        *,
        rule: Rule | None = None,
        keep_graph: bool = False,
        create_graph: bool = False,
    ) -> Tensor:
        """Return the (N, K', *image) gradients of some of the K scores with respect to the images.

        Args:
            targets: the targets, out of K.
            rule: backward rule of ReLUs, if the pass was traced with one.
            keep_graph: whether to keep the graph for further passes.
            create_graph: whether the gradients will be differentiated again.

        Raises:
            ValueError: the scores do not depend on the images, or the pass was not traced with
                ``start="images"``.
        """
        if self._leaf is None:
            raise ValueError('image gradients need a pass traced with start="images"')
        mode = self._rule
        before = None if mode is None else mode.rule
        try:
            if mode is not None and rule is not None:
                mode.rule = rule
            (rows,) = self._derivatives(
                [self._leaf],
                ["the images"],
                targets,
                keep_graph=keep_graph,
                create_graph=create_graph,
            )
        finally:
            if mode is not None and before is not None:
                mode.rule = before
        return rows.movedim(0, 1)

    def all_gradients(
        self, targets: slice = slice(None), *, keep_graph: bool = False, create_graph: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """Return :meth:`image_gradients` and :meth:`gradients` from one backward pass.

        Args:
            targets: the targets, out of K.
            keep_graph: whether to keep the graph for further passes.
            create_graph: whether the gradients will be differentiated again.

        Raises:
            ValueError: see these two methods.
        """
        if self._leaf is None:
            raise ValueError('image gradients need a pass traced with start="images"')
        names = [site.name for site in self.sites]
        rows, *layers = self._derivatives(
            [self._leaf, *(self.captured[name] for name in names)],
            ["the images", *names],
            targets,
            keep_graph=keep_graph,
            create_graph=create_graph,
        )
        read_layers = [self._rows_read(g, s) for g, s in zip(layers, self.sites, strict=True)]
        return rows.movedim(0, 1), read_layers

    def _derivatives(
        self, sources: Sequence[Tensor], names: Sequence[str], targets: slice, **options: bool
    ) -> list[Tensor]:
        try:
            return derivatives(self.scores, sources, names, targets, **options)
        except ValueError as error:
            if names := quantized(self._model):
                raise ValueError(
                    f"the layers {names[:3]} are quantized, so gradients cannot pass: explain "
                    "the model before quantization"
                ) from error
            raise

    def operations(self) -> set[str]:
        """Return the kinds of operations between the sites and the scores, by autograd node.

        A product or quotient of two results that both depend on the sites is not linear in them:
        its kind is ``"Mul of two results"`` and the like. A division by such a result is
        ``"Div by a result"``. Indices may depend on the sites' values, which the autograd graph
        does not show: every gather except the one that selects the explained classes is
        ``"Gather of the model"``.
        """
        ends = {tensor.grad_fn for tensor in self.captured.values()} - {None}
        leaves = {id(tensor) for tensor in self.captured.values()}
        order: list[Node] = []
        seen: set[Node] = set()
        stack: list[tuple[Node | None, bool]] = [(self.scores.grad_fn, False)]
        while stack:  # append each node after its successors
            node, done = stack.pop()
            if node is None:
                continue
            if done:
                order.append(node)
            elif node not in seen and node not in ends:
                seen.add(node)
                stack.append((node, True))
                stack += [(following, False) for following, _ in node.next_functions]
        names: set[str] = set()
        reaching = set(ends)
        for node in order:
            kind = node.name().rpartition("::")[2].rstrip("0123456789").removesuffix("Backward")
            ways = sum(following in reaching for following, _ in node.next_functions)
            if ways or id(getattr(node, "variable", None)) in leaves:
                reaching.add(node)
            if ways > 1 and kind in _PRODUCTS:
                kind = f"{kind} of two results"
            elif kind == "Div" and any(n in reaching for n, _ in node.next_functions[1:]):
                kind = "Div by a result"
            elif kind == "Gather" and node is not self.scores.grad_fn:
                kind = "Gather of the model"
            names.add(kind)
        return names

    def _read(self, output: Tensor, site: Site) -> Tensor:
        """Read a tensor in the shape of a site's output by the site's layout: (N, C, *grid)."""
        if site.layout is None:
            return output
        return read(output, site.layout, site.name, len(self.scores))

    def _rows_read(self, rows: Tensor, site: Site) -> Tensor:
        """Read (K, *output) gradients by a site's layout: (N, K, C, *grid)."""
        if len(rows) > 1 and site.layout is not None:
            with contextlib.suppress(RuntimeError, ValueError):  # vmap may not support a layout
                return torch.vmap(lambda row: self._read(row, site), out_dims=1)(rows)
        return torch.stack([self._read(row, site) for row in rows], dim=1)
