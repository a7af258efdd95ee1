"""The explainers: images in, :class:`~camlens.Explanation` out."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from . import checks, heatmap, layers, modules, taps
from .explanation import Explanation
from .methods import cam
from .methods import gradient as rules
from .targets import Selection, Targets, select

#: Gradients of so many bytes are computed at once; beyond, targets go in chunks.
CHUNK_BYTES = 32 * 2**20


@dataclasses.dataclass(frozen=True)
class _Call:
    """One call of an explainer: the model's inputs and what to explain of its output."""

    images: Tensor
    inputs: tuple[Any, ...]
    keywords: Mapping[str, Any]
    targets: Targets

    @property
    def size(self) -> tuple[int, int]:
        return self.images.shape[-2], self.images.shape[-1]

    def scores(self, model: nn.Module, images: Tensor) -> Selection:
        """Run the model on ``images`` and select the scores to explain."""
        selection = select(model(images, *self.inputs, **self.keywords), self.targets)
        if len(selection.scores) != len(images):
            raise ValueError(
                f"expected one row of scores for each of {len(images)} images, got "
                f"{tuple(selection.scores.shape)}"
            )
        return selection


class Explainer(abc.ABC):
    """What all explainers share: how they are called and what they check.

    An explainer holds a model and options, never the data of a call; several threads may
    use one. The model is left bit-identical: parameters, gradients, modes and hooks.
    """

    def __init__(self, model: nn.Module) -> None:
        checks.check_model(model)
        self.model = modules.unwrap(model)

    @final
    def __call__(
        self, images: Tensor, *inputs: Any, targets: Targets = None, **keywords: Any
    ) -> Explanation:
        """Explain K scores for each of N images.

        Args:
            images: (N, C, H, W) floating point, exactly as the model takes them (normalised,
                on its device); its first input.
            inputs: further positional inputs of the model.
            targets: what to explain. None: the predicted class. An int: that class. (N,) ints:
                one class an image. (N, K) ints: K classes an image. ``"all"``: every class. A
                callable: from the model's output to (N,) or (N, K) scores.
            keywords: keyword inputs of the model.

        Returns:
            The explanation, on the images' device.

        Raises:
            LookupError: a layer is unknown or did not run.
            TypeError: images, targets or the model's output are of the wrong type.
            ValueError: a wrong shape, a model in training mode, a target out of range, scores
                that are not finite or do not depend on the layer.
        """
        checks.check_images(images)
        checks.check_mode(self.model)
        with torch.inference_mode(False):
            plain = {k: _normal(v) for k, v in keywords.items()}
            call = _Call(_normal(images), tuple(map(_normal, inputs)), plain, targets)
            return self._explain(call)

    @abc.abstractmethod
    def _explain(self, call: _Call) -> Explanation: ...

    def _finish(
        self,
        call: _Call,
        selection: Selection,
        raw: Tensor,
        *,
        grid: tuple[int, int],
        names: tuple[str, ...] = (),
        gradients: Tensor | None = None,
    ) -> Explanation:
        selection.check(raw)
        return Explanation(
            raw=raw.detach().float().contiguous(),
            scores=selection.scores.detach().float(),
            targets=selection.classes,
            size=call.size,
            grid=grid,
            layers=names,
            method=type(self).__name__,
            gradients=gradients,
        )


class CAM(Explainer):
    """What the class activation maps share: layers, and one pass for activations and gradients.

    Args:
        model: any module whose output (or part of it) is a score for each image.
        layer: the layer to explain: its dotted name, the module itself, or a sequence of
            either, whose maps are fused. None: the last layer with a spatial output, found with
            a single image at the first call. Of a layer that runs several times in a forward
            pass, the last run counts.
        layout: how to read the layer's output: None infers it; else
            :func:`camlens.layers.nchw`, :func:`camlens.layers.nhwc`,
            ``camlens.layers.tokens(prefix, grid)`` or your own function to (N, C, h, w).
    """

    #: The pure function (activations, gradients) -> map.
    method: ClassVar[staticmethod[[Tensor, Tensor], Tensor]]

    def __init__(
        self,
        model: nn.Module,
        layer: str | nn.Module | Sequence[str | nn.Module] | None = None,
        *,
        layout: layers.Layout | None = None,
    ) -> None:
        super().__init__(model)
        self.layout = layout
        self.layers = None if layer is None else modules.resolve_all(self.model, layer)
        self._found: dict[torch.Size, tuple[str, ...]] = {}

    def _explain(self, call: _Call) -> Explanation:
        names = self._names(call)
        with taps.tap(self.model, names, gradients=True) as tapped:
            selection = call.scores(self.model, call.images)
            raw = self._raw(tapped, selection, call.size)
        return self._finish(call, selection, raw, grid=_grid(raw), names=names)

    def _names(self, call: _Call) -> tuple[str, ...]:
        """Return the explained layers' names; a dry run's find holds for images of one shape."""
        if self.layers is not None:
            return self.layers
        shape = call.images.shape[1:]
        if shape not in self._found:
            alone = not call.inputs and not call.keywords
            images = call.images[:1] if alone else call.images
            name = layers.last_layer(self.model, images, *call.inputs, **call.keywords)
            self._found[shape] = (name,)
        return self._found[shape]

    def _raw(
        self, tapped: taps.Taps, selection: Selection, size: tuple[int, int], keep: bool = False
    ) -> Tensor:
        """Return (N, K, h, w) maps, computed chunk by chunk of targets."""
        outputs, scores = tapped.outputs(), selection.scores
        chunks = _chunks(scores.shape[1], outputs)
        maps = []
        for chunk in chunks:
            grads = taps.derivatives(
                scores,
                outputs,
                names=tapped.layers,
                columns=chunk,
                keep_graph=keep or chunk is not chunks[-1],
            )
            pairs = zip(tapped.layers, outputs, grads, strict=True)
            maps.append(heatmap.fuse([self._map(n, a, g, size) for n, a, g in pairs]))
        return torch.cat(maps, dim=1)

    def _map(self, name: str, output: Tensor, grads: Tensor, size: tuple[int, int]) -> Tensor:
        layout, activations = self._activations(name, output, size)
        # Row by row the gradients are laid out like the output, so they are read like it.
        rows = layers.as_maps(grads.movedim(1, 0).flatten(0, 1), layout, name)
        gradients = rows.view(grads.shape[1], -1, *rows.shape[1:]).movedim(0, 1)
        return type(self).method(activations, _wide(gradients))

    def _activations(
        self, name: str, output: Tensor, size: tuple[int, int]
    ) -> tuple[layers.Layout, Tensor]:
        output = output.detach()
        module = modules.named(self.model)[name]
        layout = self.layout or layers.infer_layout(output, module, size)
        maps = layers.as_maps(output, layout, name)
        if maps.shape[-2:].numel() == 1:
            raise ValueError(
                f"layer {name!r} has a 1x1 grid for images of {size}: a single cell says nothing "
                "about where. Choose an earlier layer (camlens.find_layers(model, images) lists "
                "the grids) or larger images"
            )
        return layout, _wide(maps)


@final
class GradCAM(CAM):
    """Grad-CAM (Selvaraju et al. 2017), see :func:`camlens.methods.cam.grad_cam`.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))
        >>> explanation = GradCAM(net.eval(), "1")(torch.rand(4, 3, 8, 8), targets="all")
        >>> explanation.heatmaps.shape, explanation.grid
        (torch.Size([4, 2, 8, 8]), (6, 6))
    """

    method = staticmethod(cam.grad_cam)


@final
class GradCAMPlusPlus(CAM):
    """Grad-CAM++ (Chattopadhay et al. 2018), see :func:`camlens.methods.cam.grad_cam_plus_plus`."""

    method = staticmethod(cam.grad_cam_plus_plus)


@final
class HiResCAM(CAM):
    """HiResCAM (Draelos and Carin 2020), see :func:`camlens.methods.cam.hires_cam`."""

    method = staticmethod(cam.hires_cam)


@final
class LayerCAM(CAM):
    """LayerCAM (Jiang et al. 2021), see :func:`camlens.methods.cam.layer_cam`."""

    method = staticmethod(cam.layer_cam)


@final
class XGradCAM(CAM):
    """XGrad-CAM (Fu et al. 2020), see :func:`camlens.methods.cam.xgrad_cam`."""

    method = staticmethod(cam.xgrad_cam)


@final
class EigenCAM(CAM):
    """Eigen-CAM (Muhammad and Yeasin 2020), see :func:`camlens.methods.cam.eigen_cam`.

    It does not depend on the target: the K maps of an image are the same, and no gradient is
    computed.
    """

    method = staticmethod(cam.eigen_cam)

    def _explain(self, call: _Call) -> Explanation:
        names = self._names(call)
        with taps.tap(self.model, names) as tapped:
            selection = call.scores(self.model, call.images)
        outputs = tapped.outputs()
        pairs = zip(names, outputs, strict=True)
        try:
            maps = [cam.eigen_cam(self._activations(n, a, call.size)[1]) for n, a in pairs]
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            # NaN in the activations, and most likely in the scores
            selection.check(outputs[-1])
            raise
        raw = heatmap.fuse(maps).expand(-1, selection.scores.shape[1], -1, -1)
        return self._finish(call, selection, raw, grid=_grid(raw), names=names)


class InputFamily(Explainer):
    """What the input gradients share: one forward and one backward pass through all of the model.

    Args:
        model: any module whose output (or part of it) is a score for each image.
    """

    @abc.abstractmethod
    def _backward_rule(self) -> contextlib.AbstractContextManager[object]: ...

    def _explain(self, call: _Call) -> Explanation:
        leaf = call.images.detach().clone().requires_grad_()
        with torch.enable_grad():
            with taps.eager(self.model), self._backward_rule():
                selection = call.scores(self.model, leaf.clone())
            gradients = _by_images(selection.scores, leaf)
        raw = rules.saliency(gradients)
        return self._finish(call, selection, raw, grid=call.size, gradients=gradients)


@final
class InputGradient(InputFamily):
    """The plain gradient of a score by the image (Simonyan et al. 2013, arXiv:1312.6034)."""

    def _backward_rule(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()


@final
class Deconvnet(InputFamily):
    """Deconvnet (Zeiler and Fergus 2013), see :func:`camlens.methods.gradient.deconvnet_rule`.

    For models whose rectifiers are ReLU or ReLU6, in any spelling.
    """

    def _backward_rule(self) -> contextlib.AbstractContextManager[object]:
        return taps.rectifiers(rules.deconvnet_rule)


@final
class GuidedBackprop(InputFamily):
    """Guided backprop (Springenberg et al. 2014), :func:`camlens.methods.gradient.guided_rule`.

    For models whose rectifiers are ReLU or ReLU6, in any spelling. It shows sharp structure, but
    hardly depends on the class or even on the upper layers' weights (Adebayo et al. 2018,
    arXiv:1810.03292): look at it for texture, not as evidence for a class.
    """

    def _backward_rule(self) -> contextlib.AbstractContextManager[object]:
        return taps.rectifiers(rules.guided_rule)


@final
class GuidedGradCAM(CAM):
    """Guided backprop times Grad-CAM, see :func:`camlens.methods.gradient.guided_grad_cam`.

    Both come from one forward pass; Grad-CAM's gradients are the plain ones.
    """

    method = staticmethod(cam.grad_cam)

    def _explain(self, call: _Call) -> Explanation:
        names = self._names(call)
        leaf = call.images.detach().clone().requires_grad_()
        with taps.tap(self.model, names, gradients=True) as tapped, torch.enable_grad():
            with taps.rectifiers(rules.plain_rule) as rectifiers:
                selection = call.scores(self.model, leaf.clone())
            maps = self._raw(tapped, selection, call.size, keep=True)
            rectifiers.rule = rules.guided_rule
            guided = _by_images(selection.scores, leaf)
        heat = heatmap.scale(heatmap.resize(maps, call.size))
        gradients = rules.guided_grad_cam(guided, heat)
        return self._finish(
            call,
            selection,
            rules.saliency(gradients),
            grid=_grid(maps),
            names=names,
            gradients=gradients,
        )


def _by_images(scores: Tensor, leaf: Tensor) -> Tensor:
    """Return (N, K, C, H, W) float32 derivatives of the scores by the images."""
    chunks = _chunks(scores.shape[1], [leaf])
    parts = [
        taps.derivatives(
            scores, [leaf], names=["the images"], columns=chunk, keep_graph=chunk is not chunks[-1]
        )[0].float()
        for chunk in chunks
    ]
    return torch.cat(parts, dim=1)


def _chunks(count: int, inputs: Sequence[Tensor]) -> list[slice]:
    """Cut ``count`` targets into slices whose gradients by ``inputs`` fit into CHUNK_BYTES."""
    each = sum(x.numel() for x in inputs) * 4
    step = max(1, CHUNK_BYTES // each)
    return [slice(start, start + step) for start in range(0, count, step)]


def _wide(values: Tensor) -> Tensor:
    """Return the values in at least float32: sums over a map lose too much in half precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _grid(raw: Tensor) -> tuple[int, int]:
    return raw.shape[-2], raw.shape[-1]


def _normal(value: Any) -> Any:
    """Return a copy of a tensor made in inference mode, which autograd refuses to touch."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value
