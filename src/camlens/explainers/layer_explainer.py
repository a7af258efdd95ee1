"""Base classes of explainers of a layer's output: one layer, or several whose maps are fused."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Literal, final

import torch
from torch import Tensor, nn

from .. import heatmap
from ..layers.measurement_cache import MeasuredLayers
from ..layouts import Layout
from ..model import resolve_all
from ..probe import Pass, Probe, Site
from ..registration import Registration
from .base import Attribution, Explainer, at_least_float32


class LayerExplainer(Explainer):
    """Base class of explainers of one or more layers.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        layer: the layer to explain: its dotted name, the module itself, or a sequence of
            either, whose maps are fused. None: the default layer, which is the last layer whose
            output is a map of the image and through which all evidence for the score passes
            (:mod:`camlens.layers`). It is searched for in the first call. If a layer runs several
            times in a forward pass, its last run is explained.
        layout: how to read the layer's output. None: measured in the first call. Otherwise
            :func:`camlens.layouts.nchw`, :func:`camlens.layouts.nhwc`,
            ``camlens.layouts.tokens(prefix, grid)`` or your own function to (N, C, *grid).
        registration: where to draw the map's cells. ``"stretched"``: stretch the map over the
            image, or, if the model itself pads or crops its images, over the part that it uses.
            ``"measured"``: draw each cell at the place that it was measured to respond to. The
            first call then takes another 64 forward and backward passes of one image.
        fuse: how to combine the maps of several layers, see :func:`camlens.heatmap.fuse`:
            ``"mean"``, or ``"product"``, which retains the evidence that all layers agree on
            (RefineCAM, with Grad-CAM++).
        create_graph: whether maps and scores stay in the autograd graph, so that you can train
            with them.
    """

    needs = "a layer"

    def __init__(
        self,
        model: nn.Module,
        layer: str | nn.Module | Sequence[str | nn.Module] | None = None,
        *,
        layout: Layout | None = None,
        registration: Literal["stretched", "measured"] = "stretched",
        fuse: Literal["mean", "product"] = "mean",
        create_graph: bool = False,
    ) -> None:
        super().__init__(model, create_graph=create_graph)
        if fuse not in ("mean", "product"):
            raise ValueError(f'expected fuse "mean" or "product", got {fuse!r}')
        self.fuse = fuse
        self.layers = None if layer is None else resolve_all(self.model, layer)
        if layout is not None and not callable(layout):
            raise TypeError(
                f"expected layout as a function such as camlens.layouts.nhwc, got {layout!r}"
            )
        if registration not in ("stretched", "measured"):
            raise ValueError(
                f'expected registration "stretched" or "measured", got {registration!r}'
            )
        self.layout = layout
        self.registration = registration
        if registration == "measured" and self.layers is not None and len(self.layers) > 1:
            raise ValueError(
                'registration="measured" places the map of a single layer, got '
                f'{len(self.layers)} layers: explain them one by one, or use "stretched"'
            )
        self._measured = MeasuredLayers()

    def sites(self, probe: Probe) -> tuple[Site, ...]:
        """Return the layers to capture, each with the layout to read it by."""
        return self._measured.sites(probe, self.layers, self.layout)

    def trace(self, probe: Probe) -> Pass:
        """Run one forward pass, recording the graph from the first explained layer on."""
        start: Literal["sites", "parameters"] = "parameters" if self.create_graph else "sites"
        return probe.run(sites=self.sites(probe), start=start)

    def placed(self, probe: Probe, traced: Pass) -> Registration:
        """Return where the cells of the layers' map lie in the image."""
        return self._measured.registration(probe, traced, self.registration)

    def attribution(self, probe: Probe, traced: Pass, raw: Tensor) -> Attribution:
        """Return the attribution of maps on the layers' grid: names and registration added."""
        return Attribution(
            raw=raw,
            layers=tuple(site.name for site in traced.sites),
            registration=self.placed(probe, traced),
        )


class LayerAttribution(LayerExplainer):
    """Base class of class activation maps, computed from a layer's activations and gradients.

    A subclass defines :meth:`maps`. The arguments are those of :class:`LayerExplainer`.
    """

    cost = "F + T for each target"

    @abc.abstractmethod
    def maps(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Return (N, K, *grid) maps, not negative.

        Args:
            activations: (N, C, *grid), the layer's output.
            gradients: (N, K, C, *grid), the derivatives of the K scores with respect to the
                activations.
        """

    @final
    def attribute(self, probe: Probe) -> Attribution:
        """Run one forward pass, and a backward pass from the scores to the layer."""
        traced = self.trace(probe)
        maps = fused_maps(traced, self.maps, fuse=self.fuse, create_graph=self.create_graph)
        return self.attribution(probe, traced, maps)


def fused_maps(
    traced: Pass,
    method: Callable[[Tensor, Tensor], Tensor],
    *,
    fuse: str = "mean",
    keep_graph: bool = False,
    create_graph: bool = False,
) -> Tensor:
    """Return (N, K, *grid) maps, fused over the layers, for a chunk of targets at a time."""
    activations = [at_least_float32(maps) for maps in traced.activations()]
    if not create_graph:
        activations = [maps.detach() for maps in activations]
    chunks, parts = traced.chunks(), []
    for chunk in chunks:
        gradients = traced.gradients(
            chunk, keep_graph=keep_graph or chunk is not chunks[-1], create_graph=create_graph
        )
        pairs = zip(activations, gradients, strict=True)
        parts.append(heatmap.fuse([method(a, at_least_float32(g)) for a, g in pairs], fuse))
    return torch.cat(parts, dim=1)
