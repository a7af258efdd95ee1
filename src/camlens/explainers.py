"""Base classes of all explainers; the formulas are in ``methods/``."""

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
    """What :meth:`Explainer.attribute` returns.

    Attributes:
        raw: (N, K, *grid), not negative.
        grid: the finest detail the method can tell apart; None: raw's own grid.
        layers: names of the explained layers.
        registration: where the grid's cells lie in the image; None: raw is of the image's size.
        gradients: (N, K, C, *size) signed, for methods that explain the image's own values.
        reduction: the function that made raw of the gradients, if one did. Averages of maps are
            then made of averaged gradients, signs included.
        measures: what was measured beside the maps, see :class:`Explanation`.
        concepts: the concepts that raw was made of, if a method found some.
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
    """What all explainers share: how they are called and what they check.

    An explainer holds a model and options, never the data of a call; several threads may
    use one. The model is left bit-identical: parameters, gradients, modes and hooks.

    A method of your own overrides :meth:`attribute`.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        create_graph: whether maps and scores are part of the model's graph, to train with them.
            The model may then be in training mode.
    """

    #: What a call costs, in words: F is a forward pass of the model, T the part of one behind the
    #: explained layer. A backward pass costs about what the pass it goes back through does.
    cost: ClassVar[str] = ""
    #: What it cannot do without, in words.
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
            images: (N, C, H, W) floating point, exactly as the model takes them (normalised,
                on its device); its first input. (N, C, L) for signals, (N, C, D, H, W) for volumes.
            inputs: further positional inputs of the model.
            targets: what to explain. None: the predicted class. An int: that class. (N,) ints:
                one class for each image. (N, K) ints: K classes for each image. (1, K) ints, such
                as ``[[3, 5]]``: the same classes for every image. ``"all"``: every class.
                ``camlens.targets.top(k)``: the k highest. A callable: from the model's output to
                (N,) or (N, K) scores; score n must depend on image n alone, so a mean or a softmax
                over the batch is none.
            keywords: keyword inputs of the model.

        Returns:
            The explanation, on the images' device.

        Raises:
            LookupError: a layer is unknown or did not run, or no layer can be explained.
            TypeError: images, targets or the model's output are of the wrong type.
            ValueError: a wrong shape, a layer that is no map of the image, a model in training
                mode, a target out of range, scores that are not finite or do not depend on the
                layer.
        """
        check_images(images)
        check_batched(self.model, images)
        if not self.create_graph:
            check_mode(self.model)
        check_keywords(self.model, keywords)
        return undisturbed(lambda: self._explain(images, inputs, targets, keywords))

    @abc.abstractmethod
    def attribute(self, probe: Probe) -> Attribution:
        """Make the maps of one call, with as many passes of the model as the method needs."""

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
                    "the model uses a tensor made in torch.inference_mode(), such as one it keeps "
                    "from an earlier call, which autograd cannot use: build or load the model "
                    "anew, and predict under torch.no_grad() instead"
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
    """What explainers of layers share: which layers, and how they are read.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        layer: the layer to explain: its dotted name, the module itself, or a sequence of
            either, whose maps are fused. None: the last layer whose output is a map of the image
            and through which all evidence for the score passes (:mod:`camlens.layers`), searched
            at the first call. Of a layer that runs several times in a forward pass, the last run
            counts.
        layout: how to read the layer's output: None measures it at the first call; else
            :func:`camlens.layouts.nchw`, :func:`camlens.layouts.nhwc`,
            ``camlens.layouts.tokens(prefix, grid)`` or your own function to (N, C, *grid).
        registration: where the map's cells are drawn. ``"stretched"``: the map is stretched over
            the image. ``"measured"``: each cell at the place it was measured to look at, which
            costs about a small batch forward and backward at the first call.
        fuse: how the maps of several layers become one, see :func:`camlens.heatmap.fuse`:
            ``"mean"``, or ``"product"``, which keeps what all layers agree on (RefineCAM, with
            Grad-CAM++).
        create_graph: see :class:`Explainer`.
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
                f"{len(self.layers)} layers: explain them one by one, or stretched"
            )
        self._measured = MeasuredLayers()

    def sites(self, probe: Probe) -> tuple[Site, ...]:
        """Return the layers to capture and how to read them."""
        return self._measured.sites(probe, self.layers, self.layout)

    def trace(self, probe: Probe) -> Pass:
        """Run one forward pass that records gradients from the first explained layer on."""
        start: Literal["sites", "parameters"] = "parameters" if self.create_graph else "sites"
        return probe.run(sites=self.sites(probe), start=start)

    def placed(self, probe: Probe, traced: Pass) -> Registration:
        """Return where the cells of the layers' map lie in the image."""
        return self._measured.registration(probe, traced, self.registration)

    def attribution(self, probe: Probe, traced: Pass, raw: Tensor) -> Attribution:
        """Return maps on the layers' grid with what is known of the layers."""
        return Attribution(
            raw=raw,
            layers=tuple(site.name for site in traced.sites),
            registration=self.placed(probe, traced),
        )


class LayerAttribution(LayerExplainer):
    """The CAM family: a map from a layer's activations and their gradients.

    A subclass defines :meth:`maps`. See :class:`LayerExplainer` for the arguments.
    """

    cost = "F + T for each target"

    @abc.abstractmethod
    def maps(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Return (N, K, *grid) maps, not negative.

        Args:
            activations: (N, C, *grid).
            gradients: (N, K, C, *grid), the derivatives of the K scores by the activations.
        """

    @final
    def attribute(self, probe: Probe) -> Attribution:
        """Run one forward pass, and a backward pass through what is behind the layer."""
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
    """Return (N, K, *grid) maps, computed a chunk of targets at a time."""
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
    """The family of gradients by the image: one forward and one backward pass.

    A subclass names the backward rule of its ReLUs. See :class:`Explainer` for the arguments.
    """

    cost = "F + F for each target"

    @property
    @abc.abstractmethod
    def rule(self) -> Rule | None:
        """How gradients pass a ReLU, a rule of :mod:`camlens.methods.gradient`; None: as is."""

    @final
    def attribute(self, probe: Probe) -> Attribution:
        """Run one forward and one backward pass through the whole model."""
        # The rule holds for the gradients below only: a backward pass of the user's is plain.
        mode = None if self.rule is None else BackwardRule(rules.plain_rule)
        traced = probe.run(start="images", mode=mode)
        gradients = image_gradients(traced, self.rule, create_graph=self.create_graph)
        raw = rules.saliency(gradients)
        return Attribution(raw=raw, gradients=gradients, reduction=rules.saliency)


def image_gradients(
    traced: Pass, rule: Rule | None = None, *, create_graph: bool = False
) -> Tensor:
    """Return (N, K, C, *size) derivatives of the scores by the images, float32 or wider."""
    chunks = traced.chunks()
    parts = [
        traced.image_gradients(
            chunk, rule=rule, keep_graph=chunk is not chunks[-1], create_graph=create_graph
        )
        for chunk in chunks
    ]
    return at_least_float32(torch.cat(parts, dim=1))


def at_least_float32(values: Tensor) -> Tensor:
    """Return values in float32 or wider: sums over a map lose too much in half precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _outside_inference(value: Any) -> Any:
    """Return a copy of a tensor made in inference mode, which autograd refuses to touch."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value
