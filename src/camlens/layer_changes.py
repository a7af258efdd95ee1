"""Explainers that change a layer's output and run the rest of the model: ablation and paths."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from . import heatmap
from .cams import LINEAR
from .explainers import Attribution, LayerExplainer, at_least_float32
from .methods import cam
from .probe import Pass, Probe, Tail

__all__ = ["AblationCAM", "LayerIntegratedGradients"]

Baseline = Literal["zero", "mean"]

#: What is linear in a layer whatever its values; indices may depend on them.
_LINEAR = LINEAR - {"Index", "Gather of the model"}

#: A layer, by name or itself, or several; None: the default layer.
Layers = str | nn.Module | Sequence[str | nn.Module] | None


class TailExplainer(LayerExplainer):
    """What explainers that run a model from a layer on share; see :class:`LayerExplainer`.

    Args:
        baseline: what replaces activations: ``"zero"``, or the ``"mean"`` of each channel over the
            grid.
    """

    def __init__(
        self,
        model: nn.Module,
        layer: Layers = None,
        *,
        baseline: Baseline = "zero",
        **options: Any,
    ) -> None:
        super().__init__(model, layer, **options)
        if baseline not in ("zero", "mean"):
            raise ValueError(f'expected baseline "zero" or "mean", got {baseline!r}')
        if self.create_graph:
            raise ValueError(
                f"{type(self).__name__} has no graph to train with: use GradCAM or HiResCAM"
            )
        self.baseline = baseline

    def replaced(self, activations: Tensor) -> Tensor:
        """Return what replaces activations, of their shape."""
        if self.baseline == "zero":
            return torch.zeros_like(activations)
        axes = tuple(range(2, activations.ndim))
        return activations.mean(dim=axes, keepdim=True).expand_as(activations)

    def of_each_layer(
        self, probe: Probe, traced: Pass, maps: Callable[[Tail], Tensor]
    ) -> Attribution:
        """Fuse the maps of each layer's tail."""
        parts = [maps(Tail(probe, site, traced)) for site in traced.sites]
        return self.attribution(probe, traced, heatmap.fuse(parts, self.fuse))


@final
class AblationCAM(TailExplainer):
    """Ablation-CAM (Desai and Ramaswamy 2020), see :func:`camlens.methods.cam.ablation_cam`.

    The model runs from the layer on, once for each channel or cell, not whole: on a ResNet's last
    layer, whose channels only an average and a linear layer follow, not at all, since the falls are
    then known from the gradients.

    Args:
        model: as :class:`LayerExplainer` takes it, and likewise what follows.
        layer: the layer.
        ablate: ``"channels"``, as in the paper; or ``"cells"``: the map is how far the score falls
            without all channels of a cell (of a token, in a transformer), where it falls.
        baseline: what replaces what is taken away: ``"zero"``, as in the paper, or the channel's
            ``"mean"``.
        options: further ones of :class:`LayerExplainer`.
    """

    cost = "F + T for each channel or cell"

    def __init__(
        self,
        model: nn.Module,
        layer: Layers = None,
        *,
        ablate: Literal["channels", "cells"] = "channels",
        baseline: Baseline = "zero",
        **options: Any,
    ) -> None:
        super().__init__(model, layer, baseline=baseline, **options)
        if ablate not in ("channels", "cells"):
            raise ValueError(f'expected ablate "channels" or "cells", got {ablate!r}')
        self.ablate = ablate

    def attribute(self, probe: Probe) -> Attribution:
        """Run one pass, and its end once for each channel or cell."""
        traced = self.trace(probe)
        if len(traced.sites) == 1 and not traced.operations() - _LINEAR:
            return self.attribution(probe, traced, self._of_linear(traced))
        return self.of_each_layer(probe, traced, self._maps)

    def _of_linear(self, traced: Pass) -> Tensor:
        """Return the maps where the scores are linear in the layer: gradients tell all falls."""
        (activations,) = [at_least_float32(maps).detach() for maps in traced.activations()]
        changes = activations - self.replaced(activations)
        chunks, parts = traced.chunks(), []
        for chunk in chunks:
            (gradients,) = traced.gradients(chunk, keep_graph=chunk is not chunks[-1])
            falls = at_least_float32(gradients) * changes.unsqueeze(1)  # (N, K, C, *grid)
            scores = at_least_float32(traced.scores.detach())[:, chunk]
            parts.append(
                cam.ablation_cam(activations, falls.flatten(3).sum(dim=3), scores)
                if self.ablate == "channels"
                else falls.sum(dim=2).relu()
            )
        return torch.cat(parts, dim=1)

    def _maps(self, tail: Tail) -> Tensor:
        activations = tail.activations
        n, grid = len(activations), activations.shape[2:]
        rest = self.replaced(activations).flatten(2)
        flat = activations.flatten(2)
        axis = 1 if self.ablate == "channels" else 2
        count = flat.shape[axis]
        source = torch.arange(n, device=flat.device).repeat_interleave(count)
        place = torch.arange(count, device=flat.device).repeat(n)

        def make(rows: slice) -> Tensor:
            changed = flat[source[rows]]
            index = torch.arange(len(changed), device=flat.device)
            if axis == 1:
                changed[index, place[rows]] = rest[source[rows], place[rows]]
            else:
                changed[index, :, place[rows]] = rest[source[rows], :, place[rows]]
            whole: Tensor = changed.unflatten(2, grid)
            return whole

        scores = at_least_float32(tail.probe.unchanged().scores.detach())
        without = at_least_float32(tail.scores(make, source)).unflatten(0, (n, count))
        falls = scores.unsqueeze(2) - without.transpose(1, 2)  # (N, K, channels or cells)
        if self.ablate == "cells":
            cells: Tensor = falls.relu().unflatten(2, grid)
            return cells
        maps: Tensor = cam.ablation_cam(at_least_float32(activations), falls, scores)
        return maps


@final
class LayerIntegratedGradients(TailExplainer):
    """Integrated gradients of a layer, :func:`camlens.methods.cam.layer_integrated_gradients`.

    The gradients are taken at the middles of ``steps`` equal parts of the straight way from the
    baseline to the activations, each by a pass from the layer on. Of a single layer
    ``measures["completeness_gap"]``, (N, K), says by how much the sum of an image's signed map
    misses the score less that of the baseline: more steps make it smaller.

    Args:
        model: as :class:`LayerExplainer` takes it, and likewise what follows.
        layer: the layer.
        steps: how many gradients are averaged.
        baseline: where the way begins: ``"zero"``, or each channel's ``"mean"`` over the grid.
        options: further ones of :class:`LayerExplainer`.
    """

    cost = "F + 2 T for each step"

    def __init__(
        self,
        model: nn.Module,
        layer: Layers = None,
        *,
        steps: int = 50,
        baseline: Baseline = "zero",
        **options: Any,
    ) -> None:
        super().__init__(model, layer, baseline=baseline, **options)
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(f"expected steps as a whole number of at least 1, got {steps!r}")
        self.steps = steps

    def attribute(self, probe: Probe) -> Attribution:
        """Run one pass, and its end forward and backward once for each step."""
        traced = self.trace(probe)
        if len(traced.sites) > 1:
            return self.of_each_layer(probe, traced, lambda tail: self._signed(tail)[0].relu())
        signed, gap = self._signed(Tail(probe, traced.sites[0], traced))
        attribution = self.attribution(probe, traced, signed.relu())
        return dataclasses.replace(attribution, measures={"completeness_gap": gap})

    def _signed(self, tail: Tail) -> tuple[Tensor, Tensor]:
        """Return the signed maps, and by how much their sums miss the scores' differences."""
        activations = tail.activations
        start = self.replaced(activations)
        change = activations - start
        n = len(activations)
        middles = (torch.arange(self.steps, device=change.device) + 0.5) / self.steps
        source = torch.arange(n, device=change.device).repeat_interleave(self.steps)
        along = middles.to(change.dtype).repeat(n).view(-1, *[1] * (change.ndim - 1))

        def make(rows: slice) -> Tensor:
            return start[source[rows]] + change[source[rows]] * along[rows]

        gradients = tail.mean_gradients(make, self.steps)
        wide, begin = at_least_float32(activations), at_least_float32(start)
        maps: Tensor = cam.layer_integrated_gradients(wide, begin, gradients)
        every = torch.arange(n, device=change.device)
        scores = at_least_float32(tail.probe.unchanged().scores.detach())
        difference = scores - at_least_float32(tail.scores(start.__getitem__, every))
        return maps, (maps.flatten(2).sum(dim=2) - difference).abs()
