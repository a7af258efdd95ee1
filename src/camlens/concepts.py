"""Deep feature factorisation: a layer's concepts, and what the score loses without each."""

from __future__ import annotations

import dataclasses
from typing import Any, final

import torch
from torch import Tensor, nn

from .concept_maps import Concepts
from .explainers import Attribution, LayerExplainer, at_least_float32
from .methods import concepts
from .options import integer
from .probe import Probe, Tail

__all__ = ["DeepFeatureFactorization"]


@final
class DeepFeatureFactorization(LayerExplainer):
    """Deep feature factorisation (Collins et al. 2018), :func:`camlens.methods.concepts.factorize`.

    The activations of a layer are factorized into F concepts. ``explanation.concepts`` has their
    maps and directions, and how far each target's score falls without each: the model runs from the
    layer on, once for each concept. ``raw`` spreads what falls over the concepts' maps,
    :func:`camlens.methods.concepts.concept_maps`. ``measures["unexplained"]``, (N, K), is the part
    of the activations that the concepts leave.

    Args:
        model: as :class:`LayerExplainer` takes it.
        layer: one layer; None: the default layer.
        concepts: F.
        shared: whether the images of a call share their concepts, as in the paper. Otherwise each
            image has its own, and its map does not depend on the other images.
        directions: (F, C) concepts to look for, such as ``explanation.concepts.directions[0]`` of
            other images. None: they are found.
        signed: whether directions may be negative. Necessary for layers that are not the output
            of a ReLU, whose activations are.
        options: further ones of :class:`LayerExplainer`.

    Raises:
        ValueError: several layers or ``create_graph``; when called, activations that are negative
            without ``signed``, or too few cells or channels for F concepts.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))
        >>> explain = DeepFeatureFactorization(net.eval(), "1", concepts=3)
        >>> explanation = explain(torch.rand(2, 3, 8, 8), targets="all")
        >>> explanation.concepts.maps.shape, explanation.concepts.falls.shape
        (torch.Size([2, 3, 6, 6]), torch.Size([2, 2, 3]))
    """

    cost = "F + T for each concept"

    def __init__(
        self,
        model: nn.Module,
        layer: str | nn.Module | None = None,
        *,
        concepts: int = 4,
        shared: bool = False,
        directions: Tensor | None = None,
        signed: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(model, layer, **options)
        if self.create_graph:
            raise ValueError(
                "deep feature factorization has no graph to train with: use GradCAM or HiResCAM"
            )
        if self.layers is not None and len(self.layers) != 1:
            raise ValueError(
                f"expected one layer, whose concepts are found, got {list(self.layers)}: explain "
                "them one by one"
            )
        if directions is not None and (directions.ndim != 2 or 0 in directions.shape):
            raise ValueError(
                f"expected directions as (concepts, channels), got {tuple(directions.shape)}"
            )
        count = integer("concepts", concepts, least=1)
        self.concepts = count if directions is None else len(directions)
        self.shared, self.directions, self.signed = shared, directions, signed

    def attribute(self, probe: Probe) -> Attribution:
        """Run one pass, factorize, and run the model's end once without each concept."""
        traced = probe.run(sites=self.sites(probe), start=None)
        tail = Tail(probe, traced.sites[0], traced)
        grid = tail.activations.shape[2:]
        cells = at_least_float32(tail.activations).flatten(2).mT  # (N, cells, C)
        presences, directions = self._factors(cells)
        maps = presences.mT.unflatten(2, grid)
        falls = self._falls(tail, maps, directions)
        attribution = self.attribution(probe, traced, concepts.concept_maps(falls, maps))
        rest = concepts.unexplained(cells, presences, directions)
        return dataclasses.replace(
            attribution,
            concepts=Concepts(maps=maps, directions=directions, falls=falls),
            measures={"unexplained": rest.unsqueeze(1).expand(falls.shape[:2])},
        )

    def _factors(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Return (N, cells, F) presences and (N, F, C) directions."""
        n, count, channels = cells.shape
        if self.directions is not None:
            if self.directions.shape[1] != channels:
                raise ValueError(
                    f"expected directions of the layer's {channels} channels, got "
                    f"{self.directions.shape[1]}"
                )
            given = self.directions.to(cells)
            length = given.norm(dim=1, keepdim=True)
            unit = (given / length.where(length > 0, 1)).expand(n, -1, -1)
            return concepts.presences_of(cells, unit), unit
        if not self.signed and bool((cells < 0).any()):
            raise ValueError(
                "expected activations that are not negative, as those of a ReLU, whose parts are "
                "found by a non-negative factorization: choose a layer after a ReLU "
                "(camlens.find_layers(model, images) lists the layers), or say signed=True"
            )
        rows = n * count if self.shared else count
        if self.concepts > min(rows, channels):
            raise ValueError(
                f"expected at most {min(rows, channels)} concepts of {rows} cells and {channels} "
                f"channels, got {self.concepts}"
            )
        if not self.shared:
            return concepts.factorize(cells, self.concepts, signed=self.signed)
        presences, directions = concepts.factorize(
            cells.reshape(1, rows, channels), self.concepts, signed=self.signed
        )
        return presences.view(n, count, -1), directions.expand(n, -1, -1)

    def _falls(self, tail: Tail, maps: Tensor, directions: Tensor) -> Tensor:
        """Return (N, K, F): how far the scores fall without each concept."""
        activations = tail.activations
        n, count = maps.shape[:2]
        source = torch.arange(n, device=maps.device).repeat_interleave(count)
        which = torch.arange(count, device=maps.device).repeat(n)

        def make(rows: slice) -> Tensor:
            own, concept = source[rows], which[rows]
            part = torch.einsum("m...,mc->mc...", maps[own, concept], directions[own, concept])
            return activations[own] - part.to(activations.dtype)

        scores = at_least_float32(tail.probe.unchanged().scores.detach())
        without = at_least_float32(tail.scores(make, source)).unflatten(0, (n, count))
        falls: Tensor = scores.unsqueeze(2) - without.mT
        return falls
