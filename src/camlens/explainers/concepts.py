"""Deep feature factorisation: a layer's concepts, and the score's drop without each."""

from __future__ import annotations

import dataclasses
from typing import Any, final

import torch
from torch import Tensor, nn

from ..concept_maps import Concepts
from ..methods import concepts
from ..options import integer
from ..probe import Probe, Tail
from .base import Attribution, at_least_float32
from .layer_explainer import LayerExplainer

__all__ = ["DeepFeatureFactorization"]


@final
class DeepFeatureFactorization(LayerExplainer):
    r"""Deep feature factorisation (Collins et al. 2018): activations as a sum of concepts.

    .. math:: A \approx H W, \quad H, W \ge 0, \qquad
              L = \sum_f \mathrm{ReLU}(y - y_f)\, \frac{H_f}{\sum_{ij} H_{f,ij}}

    A is the layer's output as a (cells, C) matrix, H (cells, F) the maps of F concepts and W (F, C)
    their directions, which minimise the distance between A and H W. y is the explained score and
    :math:`y_f` the score without concept f: the part of the model that follows the layer runs once
    for each concept. ``raw`` (N, K, *grid) is L, which distributes each drop over the concept's
    map. ``explanation.concepts`` holds maps, directions and drops (``falls``), see
    :class:`Concepts`. ``measures["unexplained"]`` (N, K) is the norm of A - H W divided by that of
    A.

    Source: Collins, Achanta and Suesstrunk, "Deep Feature Factorization for Concept Discovery",
    ECCV 2018 (arXiv:1806.10206), equation 1, for H and W; the map L is camlens' own. As functions
    of tensors: :func:`camlens.methods.concepts.factorize` and
    :func:`camlens.methods.concepts.concept_maps`.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        layer: one layer, by name or as a module; None: the default layer.
        concepts: F, the number of concepts.
        shared: whether the images of a call share their concepts, as in the paper. Otherwise each
            image has its own, and its map does not depend on the other images.
        directions: (F, C) given directions, such as ``explanation.concepts.directions[0]`` of other
            images. None: they are computed from the activations.
        signed: whether directions may be negative. Required for layers with negative activations,
            that is, for layers that are not the output of a ReLU.
        options: ``layout`` and ``registration``, see :class:`LayerExplainer`.

    Raises:
        ValueError: several layers are given, or ``create_graph`` is true; when called, if
            activations are negative without ``signed``, or if there are too few cells or channels
            for F concepts.

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
                "DeepFeatureFactorization does not support create_graph=True: to train with maps "
                "use GradCAM or HiResCAM"
            )
        if self.layers is not None and len(self.layers) != 1:
            raise ValueError(
                f"expected one layer to factorize, got {list(self.layers)}: explain them one by one"
            )
        if directions is not None and (directions.ndim != 2 or 0 in directions.shape):
            raise ValueError(
                f"expected directions as (concepts, channels), got {tuple(directions.shape)}"
            )
        count = integer("concepts", concepts, least=1)
        self.concepts = count if directions is None else len(directions)
        self.shared, self.directions, self.signed = shared, directions, signed

    def attribute(self, probe: Probe) -> Attribution:
        """Run the model, factorize, and run the part after the layer without each concept."""
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
            chosen = self.directions.to(cells)
            length = chosen.norm(dim=1, keepdim=True)
            unit = (chosen / length.where(length > 0, 1)).expand(n, -1, -1)
            return concepts.presences_of(cells, unit), unit
        if not self.signed and bool((cells < 0).any()):
            raise ValueError(
                "expected activations that are not negative, such as those of a ReLU, for a "
                "non-negative factorization: choose a layer after a ReLU "
                "(camlens.find_layers(model, images) lists the layers), or pass signed=True"
            )
        rows = n * count if self.shared else count
        if self.concepts > min(rows, channels):
            raise ValueError(
                f"expected at most {min(rows, channels)} concepts for {rows} cells and {channels} "
                f"channels, got {self.concepts}"
            )
        if not self.shared:
            return concepts.factorize(cells, self.concepts, signed=self.signed)
        presences, directions = concepts.factorize(
            cells.reshape(1, rows, channels), self.concepts, signed=self.signed
        )
        return presences.view(n, count, -1), directions.expand(n, -1, -1)

    def _falls(self, tail: Tail, maps: Tensor, directions: Tensor) -> Tensor:
        """Return the (N, K, F) drops of the scores without each concept."""
        activations = tail.activations
        n, count = maps.shape[:2]
        source = torch.arange(n, device=maps.device).repeat_interleave(count)
        which = torch.arange(count, device=maps.device).repeat(n)

        def make(rows: slice) -> Tensor:
            image, concept = source[rows], which[rows]
            part = torch.einsum("m...,mc->mc...", maps[image, concept], directions[image, concept])
            return activations[image] - part.to(activations.dtype)

        scores = at_least_float32(tail.probe.unchanged().scores.detach())
        without = at_least_float32(tail.scores(make, source)).unflatten(0, (n, count))
        falls: Tensor = scores.unsqueeze(2) - without.mT
        return falls
