"""Base classes of the explainers. The formulas are in :mod:`camlens.methods`."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn

from . import heatmap
from .concept_maps import Concepts
from .explanation import Explanation
from .intercept import BackwardRule, Rule
from .layers.measured import MeasuredLayers
from .layouts import Layout
from .methods import gradient as rules
from .model import (
    check_batched,
    check_images,
    check_keywords,
    check_mode,
    check_model,
    resolve_all,
)
from .probe import Pass, Probe, Site
from .probe.hooks import undisturbed
from .registration import Registration
from .targets import Targets


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Attribution:
    """The maps of one call, as :meth:`Explainer.attribute` returns them.

    Attributes:
        raw: (N, K, *grid) maps, not negative.
        grid: the finest grid that the method resolves; None: the grid of ``raw``.
        layers: names of the explained layers.
        registration: where the grid's cells lie in the image; None: ``raw`` has the image's size.
        gradients: (N, K, C, *size), signed, for methods that explain the values of the image.
        reduction: the function that computed ``raw`` from ``gradients``, if one did. A method that
            averages maps, such as SmoothGrad, then averages the signed gradients and reduces the
            mean.
        measures: quantities that the method measured along with the maps, see
            :class:`Explanation`.
        concepts: the concepts that ``raw`` was computed from; None for other methods.
    """

    raw: Tensor
    grid: tuple[int, ...] | None = None
    layers: tuple[str, ...] = ()
    registration: Registration | None = None
    gradients: Tensor | None = None
    reduction: Callable[[Tensor], Tensor] | None = None
    measures: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    concepts: Concepts | None = None


class Explainer(abc.ABC):
    """Base class of all explainers: wraps a model and returns an explanation when called.

    An explainer holds a model and options, but no data of a call, so several threads can share
    one. A call leaves the model bit-identical: parameters, gradients, modes and hooks.

    To write your own method, subclass and override :meth:`attribute`.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        create_graph: whether maps and scores stay in the autograd graph, so that you can train
            with them. The model may then be in training mode.
    """

    #: Cost of a call, in words: F is a forward pass of the model, T the part of it after the
    #: explained layer. A backward pass counts as much as the forward pass that it reverses.
    cost: ClassVar[str] = ""
    #: What the method requires besides a model and images, in words.
    needs: ClassVar[str] = ""

    def __init__(self, model: nn.Module, *, create_graph: bool = False) -> None:
        self.model = check_model(model)
        self.create_graph = create_graph

    def __repr__(self) -> str:
        """Name the method, the model's class, the layers and the options."""
        options = [
            f"{name}={getattr(value, '__name__', None) or repr(value)}"
            for name, value in vars(self).items()
            if name != "model" and not name.startswith("_")
        ]
        return f"{type(self).__name__}({', '.join([type(self.model).__name__, *options])})"

    @final
    def __call__(
        self, images: Tensor, *inputs: Any, targets: Targets = None, **keywords: Any
    ) -> Explanation:
        """Explain K scores for each of N images.

        Args:
            images: the model's first input, (N, C, H, W) floating point, preprocessed as the model
                expects (normalised, on its device). (N, C, L) for signals, (N, C, D, H, W) for
                volumes.
            inputs: further positional inputs of the model.
            targets: what to explain. None: the predicted class. An int: that class. (N,) ints:
                one class for each image. (N, K) ints: K classes for each image. (1, K) ints, such
                as ``[[3, 5]]``: the same classes for every image. ``"all"``: every class.
                ``camlens.targets.top(k)``: the k classes with the highest scores. A callable: maps
                the model's output to (N,) or (N, K) scores. Score n must depend on image n alone,
                which rules out a mean or a softmax over the batch.
            keywords: keyword inputs of the model.

        Returns:
            The explanation, on the images' device.

        Raises:
            LookupError: a layer is unknown or did not run, or no layer can be explained.
            TypeError: the images, the targets or the model's output have the wrong type.
            ValueError: a shape is wrong, a layer's output is not a map of the image, the model is
                in training mode, a target is out of range, or scores are not finite or do not
                depend on the layer.
        """
        check_images(images)
        check_batched(self.model, images)
        if not self.create_graph:
            check_mode(self.model)
        check_keywords(self.model, keywords)
        return undisturbed(lambda: self._explain(images, inputs, targets, keywords))

    @abc.abstractmethod
    def attribute(self, probe: Probe) -> Attribution:
        """Compute the maps of one call, with as many passes of the model as the method needs."""

    def _explain(
        self, images: Tensor, inputs: Sequence[Any], targets: Targets, keywords: dict[str, Any]
    ) -> Explanation:
        with torch.inference_mode(False):
            plain = {name: _outside_inference(value) for name, value in keywords.items()}
            probe = Probe(
                self.model,
                _outside_inference(images),
                [_outside_inference(value) for value in inputs],
                plain,
                targets,
                create_graph=self.create_graph,
            )
            try:
                attribution = self.attribute(probe)
            except RuntimeError as error:
                if "nference tensor" not in str(error):
                    raise
                raise ValueError(
                    "the model uses a tensor made in torch.inference_mode(), such as one that it "
                    "stored in an earlier call, which autograd cannot use: build or load the model "
                    "again, and predict under torch.no_grad() instead"
                ) from error
            return self._finish(probe, attribution, images)

    def _finish(self, probe: Probe, attribution: Attribution, images: Tensor) -> Explanation:
        selection = probe.unchanged()
        raw, gradients = attribution.raw, attribution.gradients
        selection.check(raw)

        def kept(tensor: Tensor) -> Tensor:
            return tensor if self.create_graph else tensor.detach()

        return Explanation(
            raw=kept(raw).float().contiguous(),
            scores=kept(selection.scores).float(),
            targets=selection.classes,
            size=probe.size,
            grid=attribution.grid or tuple(raw.shape[2:]),
            layers=attribution.layers,
            method=type(self).__name__,
            gradients=gradients if gradients is None else kept(gradients).float(),
            outputs=None if selection.logits is None else kept(selection.logits),
            registration=attribution.registration,
            measures={name: kept(m).float() for name, m in attribution.measures.items()},
            concepts=attribution.concepts and attribution.concepts.each(lambda t: kept(t).float()),
            images=images,
        )


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
            image. ``"measured"``: draw each cell at the place that it was measured to respond to;
            the measurement costs about a forward and a backward pass of a small batch in the first
            call.
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


class GradientAttribution(Explainer):
    """Base class of input-gradient methods: one forward and one backward pass to the image.

    A subclass defines :attr:`rule`, the backward rule of ReLUs. The arguments are those of
    :class:`Explainer`.
    """

    cost = "F + F for each target"

    @property
    @abc.abstractmethod
    def rule(self) -> Rule | None:
        """Backward rule of ReLUs, see :mod:`camlens.methods.gradient`; None: the derivative."""

    @final
    def attribute(self, probe: Probe) -> Attribution:
        """Run one forward and one backward pass through the whole model."""
        # The rule applies to the gradients below only: the user's backward passes stay plain.
        mode = None if self.rule is None else BackwardRule(rules.plain_rule)
        traced = probe.run(start="images", mode=mode)
        gradients = image_gradients(traced, self.rule, create_graph=self.create_graph)
        raw = rules.saliency(gradients)
        return Attribution(raw=raw, gradients=gradients, reduction=rules.saliency)


def image_gradients(
    traced: Pass, rule: Rule | None = None, *, create_graph: bool = False
) -> Tensor:
    """Return (N, K, C, *size) gradients with respect to the images, in float32 or wider."""
    chunks = traced.chunks()
    parts = [
        traced.image_gradients(
            chunk, rule=rule, keep_graph=chunk is not chunks[-1], create_graph=create_graph
        )
        for chunk in chunks
    ]
    return at_least_float32(torch.cat(parts, dim=1))


def at_least_float32(values: Tensor) -> Tensor:
    """Convert values to float32 or wider, as sums over a map lose too much in half precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _outside_inference(value: Any) -> Any:
    """Return a copy of a tensor that was made in inference mode, which autograd refuses."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value
