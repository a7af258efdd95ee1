"""Explainers that change a layer's output and rerun the rest, such as Ablation-CAM."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from .. import heatmap
from ..methods import cam
from ..probe import Pass, Probe, Tail
from .base import Attribution, at_least_float32
from .cams import LINEAR
from .layer_explainer import LayerExplainer

__all__ = ["AblationCAM", "LayerIntegratedGradients"]

Baseline = Literal["zero", "mean"]

#: Operations that are linear in a layer for all values: indices may depend on the values.
_LINEAR = LINEAR - {"Index", "Gather of the model"}

#: A layer, by name or as a module, or several; None: the default layer.
Layers = str | nn.Module | Sequence[str | nn.Module] | None


class TailExplainer(LayerExplainer):
    """Base class of explainers that run the part of a model that follows a layer.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        layer: see :class:`LayerExplainer`.
        baseline: the values that replace activations: ``"zero"``, or ``"mean"``, the mean of each
            channel over the grid.
        options: further options of :class:`LayerExplainer`.
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
                f"{type(self).__name__} does not support create_graph=True: to train with maps use "
                "GradCAM or HiResCAM"
            )
        self.baseline = baseline

    def replaced(self, activations: Tensor) -> Tensor:
        """Return the values that replace activations, in the same shape."""
        if self.baseline == "zero":
            return torch.zeros_like(activations)
        axes = tuple(range(2, activations.ndim))
        return activations.mean(dim=axes, keepdim=True).expand_as(activations)

    def of_each_layer(
        self, probe: Probe, traced: Pass, maps: Callable[[Tail], Tensor]
    ) -> Attribution:
        """Compute a map from each layer's tail, and fuse the maps."""
        parts = [maps(Tail(probe, site, traced)) for site in traced.sites]
        return self.attribution(probe, traced, heatmap.fuse(parts, self.fuse))


@final
class AblationCAM(TailExplainer):
    r"""Ablation-CAM (Desai and Ramaswamy 2020): channels weighted by the score's drop without them.

    .. math:: L = \mathrm{ReLU}\Big(\sum_c w_c A_c\Big), \quad w_c = \frac{y - y_c}{|y|}

    A is the layer's output, (N, C, *grid), y the explained score and :math:`y_c` the score when
    channel c is replaced by the baseline. The paper divides by y, which would invert the map of a
    negative score; for positive scores the two agree.

    Only the part of the model that follows the layer runs again, once for each channel or cell. If
    a single layer is explained and that part is linear, such as the average pooling and linear
    layer at the end of a ResNet, nothing runs again: the drops follow from the gradients.

    Source: Desai and Ramaswamy, "Ablation-CAM: Visual Explanations for Deep Convolutional Network
    via Gradient-free Localization", WACV 2020, equations 2 and 3. As a function of tensors:
    :func:`camlens.methods.cam.ablation_cam`.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        layer: the layer to explain, by name or as a module; the maps of several are fused. None:
            the default layer.
        ablate: ``"channels"``, as in the paper; or ``"cells"``: the map is the positive part of the
            score's drop when all channels of a cell (in a transformer, of a token) are replaced.
        baseline: what replaces a channel or cell: ``"zero"``, as in the paper, or ``"mean"``, the
            mean of each channel over the grid.
        options: ``layout``, ``registration`` and ``fuse``, see :class:`LayerExplainer`.

    Raises:
        ValueError: an option is unknown, or ``create_graph`` is true.
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
        """Run the model once, and the part after the layer once for each channel or cell."""
        traced = self.trace(probe)
        if len(traced.sites) == 1 and not traced.operations() - _LINEAR:
            return self.attribution(probe, traced, self._of_linear(traced))
        return self.of_each_layer(probe, traced, self._maps)

    def _of_linear(self, traced: Pass) -> Tensor:
        """Return the maps if the scores are linear in the layer: gradients give all drops."""
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
    r"""Layer integrated gradients: a layer's change from a baseline times its mean gradient.

    .. math:: L = \mathrm{ReLU}\Big(\sum_c (A_c - B_c) \odot
              \int_0^1 \frac{\partial y}{\partial A_c}\big(B + t (A - B)\big)\, dt\Big)

    A is the layer's output, (N, C, *grid), B the baseline and y the explained score. The integral
    is the mean gradient at the midpoints of ``steps`` equal parts of the straight line from B to A;
    each step runs the part of the model that follows the layer. For a single layer,
    ``measures["completeness_gap"]`` (N, K) is the absolute difference between the sum of an image's
    signed map and y(A) - y(B). More steps make it smaller.

    Source: Sundararajan et al., "Axiomatic Attribution for Deep Networks", ICML 2017
    (arXiv:1703.01365), equations 1 and 3, at a layer in place of the image. As a function of
    tensors: :func:`camlens.methods.cam.layer_integrated_gradients`.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        layer: the layer to explain, by name or as a module; the maps of several are fused. None:
            the default layer.
        steps: number of gradients to average.
        baseline: start of the line: ``"zero"``, or ``"mean"``, the mean of each channel over the
            grid.
        options: ``layout``, ``registration`` and ``fuse``, see :class:`LayerExplainer`.

    Raises:
        ValueError: an option is out of range, or ``create_graph`` is true.
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
            raise ValueError(f"expected steps as an integer of at least 1, got {steps!r}")
        self.steps = steps

    def attribute(self, probe: Probe) -> Attribution:
        """Run the model once, and the part after the layer forward and backward for each step."""
        traced = self.trace(probe)
        if len(traced.sites) > 1:
            return self.of_each_layer(probe, traced, lambda tail: self._signed(tail)[0].relu())
        signed, gap = self._signed(Tail(probe, traced.sites[0], traced))
        attribution = self.attribution(probe, traced, signed.relu())
        return dataclasses.replace(attribution, measures={"completeness_gap": gap})

    def _signed(self, tail: Tail) -> tuple[Tensor, Tensor]:
        """Return the signed maps and their completeness gaps."""
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
