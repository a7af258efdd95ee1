"""The class activation maps as explainers; their formulas are in ``methods/cam.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from . import explain, heatmap, modules, taps
from . import old_layers as layers
from .derivatives import derivatives
from .explain import Call, Explainer, wide
from .explanation import Explanation
from .methods import cam
from .targets import Selection


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
        if not hasattr(type(self), "method"):
            raise TypeError("CAM is what the class activation maps share: use one, such as GradCAM")
        if layout is not None and not callable(layout):
            raise TypeError(
                f"expected layout as a function such as camlens.layers.nhwc, got {layout!r}"
            )
        self.layout = layout
        self.layers = None if layer is None else modules.resolve_all(self.model, layer)
        self._found: dict[torch.Size, tuple[str, ...]] = {}

    def _explain(self, call: Call) -> Explanation:
        names = self._names(call)
        with taps.tap(self.model, names, gradients=True) as tapped:
            selection = call.scores(self.model, call.images)
            tapped.outputs()
            if tapped.interrupted or not torch.is_grad_enabled():
                # The model itself runs a frozen part under no_grad, and leaving that block took
                # it back to the mode around the tap. Once more, with gradients as that mode.
                with torch.enable_grad():
                    selection = call.scores(self.model, call.images)
            raw = self._raw(tapped, selection, call.size)
        return self._finish(call, selection, raw, grid=explain.grid_of(raw), names=names)

    def _names(self, call: Call) -> tuple[str, ...]:
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
        read = [self._read(n, out, size) for n, out in zip(tapped.layers, outputs, strict=True)]
        chunks = explain.chunks(scores.shape[1], outputs)
        maps = []
        for chunk in chunks:
            grads = derivatives(
                scores,
                outputs,
                names=tapped.layers,
                columns=chunk,
                keep_graph=keep or chunk is not chunks[-1],
            )
            parts = [self._map(*layer, g) for layer, g in zip(read, grads, strict=True)]
            maps.append(heatmap.fuse(parts))
        return torch.cat(maps, dim=1)

    def _read(
        self, name: str, output: Tensor, size: tuple[int, int]
    ) -> tuple[layers.Layout, Tensor]:
        """Return a layer's layout, and its activations as (N, C, h, w)."""
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
        return layout, wide(maps)

    def _map(self, layout: layers.Layout, activations: Tensor, grads: Tensor) -> Tensor:
        # Row by row the gradients are laid out like the output, so they are read like it.
        rows = layout(grads.movedim(1, 0).flatten(0, 1))
        gradients = rows.view(grads.shape[1], -1, *rows.shape[1:]).movedim(0, 1)
        return type(self).method(activations, wide(gradients))


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

    def _explain(self, call: Call) -> Explanation:
        names = self._names(call)
        with taps.tap(self.model, names) as tapped:
            selection = call.scores(self.model, call.images)
        outputs = tapped.outputs()
        pairs = zip(names, outputs, strict=True)
        try:
            maps = [cam.eigen_cam(self._read(n, out, call.size)[1]) for n, out in pairs]
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            # NaN in the activations, and most likely in the scores
            selection.check(outputs[-1])
            raise
        raw = heatmap.fuse(maps).expand(-1, selection.scores.shape[1], -1, -1)
        return self._finish(call, selection, raw, grid=explain.grid_of(raw), names=names)
