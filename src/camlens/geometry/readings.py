"""Measures which dimension of a layer's output is the batch and which are spatial.

A tensor's shape does not show the meaning of its dimensions. camlens runs the model on changed
images (:mod:`camlens.geometry.responses`); a reading of the output is right if the measured centres
of its values move over the image as the reading predicts (:mod:`camlens.geometry.fits`). All layers
share the same 3 + 2 d runs of two images for d image axes, that is 14 single images for pictures.
The runs are repeated with noise for layers that do not respond to the images, and with all other
layers for layers whose values depend on the whole image.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import layouts
from ..layouts import Layout
from ..registration import Span
from . import fits
from .fits import Fit
from .orders import Order
from .responses import Response, Run, respond
from .span import UNKNOWN

_CHANNELS_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.modules.pooling._LPPoolNd,
    nn.Upsample,
    nn.PixelShuffle,
)
_CHANNELS_LAST = (nn.LayerNorm, nn.Linear, nn.RMSNorm)


@dataclasses.dataclass(frozen=True)
class Reading:
    """The measured layout of a layer's output, or the reason why it is not a map.

    Attributes:
        layout: turns the output into (N, C, *grid); None if it is not a map, see ``reason``.
        channels: number of channels C.
        grid: cells along each axis of the image.
        proven: whether the measured positions of the cells show the layout. False if the cells
            respond to the whole image (or there is a single cell), and the layout is that of the
            kind of module or of a proven layer with an output of the same shape. Also False if all
            cells together cover another part of the image than ``span``, as after a crop of a
            layer's output, or if the model changes its images' size in an unknown way.
        span: the part of each image axis in pixels that the grid covers, if the model pads or crops
            its images; None: the whole image.
        reason: an error message that names the layer, its shape and the remedy; or "".
    """

    layout: Layout | None
    channels: int = 0
    grid: tuple[int, ...] = ()
    proven: bool = False
    span: Span | None = None
    reason: str = ""


def measure(
    run: Run,
    names: Sequence[str],
    images: Tensor,
    *,
    kinds: Mapping[str, type[nn.Module]],
    fixed: bool = False,
    reverse: Run | None = None,
    span: Callable[[str], Span | None] = lambda _: None,
) -> dict[str, Reading]:
    """Measure the readings of layers.

    Args:
        run: runs the model on images, without gradients; returns the outputs of layers by name.
        names: layers to read.
        images: (N, C, *size), preprocessed as the model expects.
        kinds: class of every module that ``run`` can capture, by layer name. If a layer's cells
            respond to the whole image, the other layers are measured too.
        fixed: whether the model accepts only N images.
        reverse: runs the model on images in reverse order, with further inputs in that order, and
            may return nothing; None: use ``run``.
        span: returns the part of the images that a layer covers, after the model ran: None for the
            whole images, or :data:`camlens.geometry.span.UNKNOWN`.

    Returns:
        Readings by layer name, in the order of ``names``.
    """
    outcome = _Measurement(run, images, kinds, fixed=fixed, reverse=reverse, span=span)
    outcome.add(names)
    if any(name not in outcome.readings for name in names):
        outcome.add([name for name in kinds if name not in outcome.responses])
    return {name: outcome.reading(name) for name in names}


class _Measurement:
    """Responses and readings of a model's layers to the same images."""

    def __init__(
        self,
        run: Run,
        images: Tensor,
        kinds: Mapping[str, type[nn.Module]],
        *,
        fixed: bool,
        reverse: Run | None,
        span: Callable[[str], Span | None],
    ) -> None:
        self.run, self.images, self.kinds, self.span = run, images, kinds, span
        self.how: dict[str, Any] = {"fixed": fixed, "reverse": reverse}
        self.size = tuple(images.shape[2:])
        self.responses: dict[str, Response] = {}
        self.readings: dict[str, Reading] = {}
        self.orders: list[Order] = []

    def add(self, names: Sequence[str]) -> None:
        """Measure layers on the images, then on noise if they do not respond to the images."""
        for content in ("images", "noise"):
            names = [name for name in names if self.undecided(name)]
            if not names:
                return
            measured = respond(self.run, names, self.images, content=content, **self.how)
            measured = {
                name: response
                for name, response in measured.items()
                if name not in self.responses or not response.fault
            }
            self.responses |= measured
            # Layers whose kind of module fixes the layout come first: others of their shape use it.
            for name in sorted(measured, key=lambda name: self._by_kind(name) is None):
                self._decide(name)

    def undecided(self, name: str) -> bool:
        """Return whether the measurements so far leave a layer's reading open."""
        silent = name in self.responses and self.responses[name].fault == "silent"
        return name not in self.readings or silent

    def _decide(self, name: str) -> None:
        """Store the reading that the responses support, or the reason why there is none."""
        response = self.responses[name]
        self.readings.pop(name, None)
        if response.fault:
            self.readings[name] = Reading(None, reason=_fault(name, response, self.kinds[name]))
            return
        candidates: dict[Fit, Order | None] = dict.fromkeys(fits.dense(response, self.size))
        kind = self._by_kind(name)
        tokens = dict(fits.sequences(response, self.size, self.orders))
        if len(self.size) == 1 and any(fit.holds for fit in candidates):
            # A signal's tokens after a class token also read as a signal, one cell longer.
            tokens = {} if kind is layouts.nchw else self._fewer_cells(candidates, tokens)
        candidates.update(tokens)
        likely = kind or self._by_peers(name)
        share = max((fit.share for fit in candidates if fit.layout == likely), default=0.0)
        best = max((fit.share for fit in candidates), default=0.0)
        if likely and (kind is layouts.nchw or best < max(min(share + 0.5, fits.SURE), fits.RARE)):
            candidates = {f: order for f, order in candidates.items() if f.layout == likely}
            best = share
        for fit, order in candidates.items():  # the usual ones first
            if fit.holds and fit.share >= best - fits.MARGIN:
                known, covered = self.span(name) != UNKNOWN, self.span(name) or None
                proven = known and fits.covers_image(response, fit.grid, covered, self.size)
                self.readings[name] = Reading(
                    fit.layout, fit.channels, fit.grid, proven=proven, span=covered
                )
                if order:
                    self.orders.insert(0, order)
                return

    def _fewer_cells(
        self, plain: dict[Fit, Order | None], tokens: Mapping[Fit, Order]
    ) -> dict[Fit, Order]:
        """Return token readings whose grid divides a signal's length, if a plain one's does not.

        They replace the plain reading if their cells follow the signal better.
        """
        length = self.size[0]
        for fit in [fit for fit in plain if fit.layout == layouts.nhwc and fit.holds]:
            better = {
                other: order
                for other, order in tokens.items()
                if other.holds
                and length % other.grid[0] == 0 != length % fit.grid[0]
                and other.purity > fit.purity
            }
            if better:
                del plain[fit]
                return better
        return {}

    def reading(self, name: str) -> Reading:
        """Return the measured reading, or that of the structure if cells see the whole image."""
        if name in self.readings:
            return self.readings[name]
        response, d = self.responses[name], len(self.size)
        kind = self._by_kind(name)
        layout = kind or self._by_shape(name) or self._by_peers(name) or self._by_contents(name)
        if layout is None and len(response.shape) == d + 2 and math.prod(response.shape[2:]) == 1:
            layout = layouts.nchw  # a single cell
        if layout is None or fits.contradicts(response, layout, by_kind=kind is not None):
            return Reading(None, reason=_unordered(name, response, self.kinds[name], self.size))
        shape = layout(torch.empty(response.shape, device="meta")).shape
        return Reading(
            layout, shape[1], tuple(shape[2:]), proven=False, span=self.span(name) or None
        )

    def _by_kind(self, name: str) -> Layout | None:
        """Return the layout that follows from the kind of module, or None."""
        response, kind = self.responses[name], self.kinds[name]
        if response.fault or response.batch != 0 or len(response.shape) != len(self.size) + 2:
            return None
        if issubclass(kind, _CHANNELS_FIRST):
            return layouts.nchw
        # Linear layers are also applied to heads, in (N, tokens, tokens, heads).
        plausible = all(
            grid in (size, size // round(size / grid), -(-size // round(size / grid)))
            for grid, size in zip(response.shape[1:-1], self.size, strict=True)
            if grid <= size
        )
        return layouts.nhwc if kind in _CHANNELS_LAST and plausible else None

    def _peers(self, name: str) -> list[str]:
        """Return the layers with an output of the same shape."""
        response = self.responses[name]
        return [
            other
            for other, peer in self.responses.items()
            if (peer.shape, peer.batch, peer.fault) == (response.shape, response.batch, "")
        ]

    def _by_peers(self, name: str) -> Layout | None:
        """Return the layout that the kinds of modules with an output of this shape agree on."""
        kinds = {self._by_kind(other) for other in self._peers(name)} - {None}
        return kinds.pop() if len(kinds) == 1 else None

    def _by_contents(self, name: str) -> Layout | None:
        """Return the layout that the kinds of submodules with an equal grid agree on."""
        response = self.responses[name]
        equal = {
            kind
            for other, peer in self.responses.items()
            if other.startswith(f"{name}.")
            and (kind := self._by_kind(other))
            and len(peer.shape) == len(response.shape)
            and _grid(peer, kind) == _grid(response, kind)
        }
        return equal.pop() if len(equal) == 1 and response.batch == 0 else None

    def _by_shape(self, name: str) -> Layout | None:
        """Return the layout that proven layers with an output of the same shape agree on."""
        readings = [self.readings.get(other) for other in self._peers(name)]
        proven = {reading.layout for reading in readings if reading and reading.proven}
        return proven.pop() if len(proven) == 1 else None


def _grid(response: Response, layout: Layout) -> tuple[int, ...]:
    return response.shape[2:] if layout is layouts.nchw else response.shape[1:-1]


_CHOOSE = "choose another layer: camlens.find_layers(model, images) lists them"


def _shape(response: Response) -> str:
    """Return an output's shape as text, with N for the number of images, which camlens chose."""
    sides = ["N" if dim == response.batch else str(n) for dim, n in enumerate(response.shape)]
    return f"({', '.join(sides)})"


def _fault(name: str, response: Response, kind: type[nn.Module]) -> str:
    layer = f"layer {name!r} ({kind.__name__})"
    if response.fault == "absent":
        return f"{layer} did not run, or returned no floating-point tensor: {_CHOOSE}"
    if response.fault == "shape":
        return f"{layer} gives {_shape(response)}, but another shape for changed images: {_CHOOSE}"
    if response.fault == "silent":
        return f"{layer} gives {_shape(response)}, which does not depend on the images: {_CHOOSE}"
    n = response.images
    images = f"{n} images" if n > 1 else "1 image"
    rows = f"expected one row for each of {images}" if n > 1 else "expected one row"
    reason = {
        "rows": f"{rows}, but no dimension has that length (windows, frames, pairs or proposals "
        "in the batch?)",
        "mixed": f"{rows}, but a change of the first image changes other rows too",
        "order": f"{rows}, in the images' order, but the order of the rows depends on what the "
        "images show",
    }[response.fault]
    groups = (
        f"camlens.layouts.groups({response.group}) if each of an image's rows is a map of the "
        "whole image, or "
        if response.group
        else ""
    )
    return (
        f"{layer} gives {response.shape}, measured on {images}: {reason}. Pass "
        f"layout= {groups}a function that returns (N, C, *grid), or {_CHOOSE}"
    )


def _unordered(name: str, response: Response, kind: type[nn.Module], size: tuple[int, ...]) -> str:
    layer = f"layer {name!r} ({kind.__name__}) gives {_shape(response)}"
    if len(response.shape) < 3:
        return f"{layer}, which has no spatial dimensions: {_CHOOSE}"
    return (
        f"{layer} for images of {size}: no known layout (channels first or last, tokens in rows "
        "or windows) explains how its values respond to local changes of the images. Pass "
        "layout= with a function to (N, C, *grid), such as camlens.layouts.tokens(prefix, "
        f"grid), or {_CHOOSE}"
    )
