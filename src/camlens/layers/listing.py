"""Lists the layers of a model that can be explained."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..geometry import Reading
from ..model import check_batched, check_images, check_keywords, check_mode, check_model
from ..probe import Probe, Site
from ..probe.hooks import undisturbed
from ..registration import Registration, stretched_pitch
from ..targets import Targets
from .default_layer import CELLS_REACHED, Read, on_few_rows
from .evidence import Evidence, all_outputs
from .measurement_cache import MeasuredLayers
from .trace import Trace, trace


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer that can be explained: its output is a map of the image.

    Attributes:
        name: dotted name, to pass to an explainer.
        type: class name of the module.
        channels: number of channels C.
        grid: cells along each spatial axis, such as (h, w).
        all_evidence: whether all evidence for the scores passes through the map: every path from
            the images to the scores includes it, and the scores' gradient reaches at least two of
            its cells.
        pitch: distance between neighbouring cells in pixels along each axis: measured, or else the
            part of the image that the grid covers divided by the grid.
        receptive_field: width of the region that a cell responds to, in pixels along each axis;
            None unless measured.
        proven: whether a measurement showed that each cell responds to its own place. If False, the
            layout follows from the kind of module or from other layers of the same shape.
    """

    name: str
    type: str
    channels: int
    grid: tuple[int, ...]
    all_evidence: bool
    pitch: tuple[float, ...]
    receptive_field: tuple[float, ...] | None
    proven: bool


def find_layers(
    model: nn.Module,
    images: Tensor,
    *inputs: Any,
    targets: Targets = None,
    measure: bool = False,
    **keywords: Any,
) -> list[Layer]:
    """List the layers of a model that can be explained, in the order in which they finish.

    Args:
        model: any module; it is not changed.
        images: (N, C, *size), preprocessed as the model expects.
        inputs: further positional inputs of the model.
        targets: the scores to explain, as for the explainers. None: all classes, or all outputs
            together if a model returns more than one tensor of scores.
        measure: whether to measure pitch and receptive field, which takes about 64 forward and
            backward passes of one image for each layer.
        keywords: keyword inputs of the model.

    Returns:
        One :class:`Layer` for each module whose output is a map of the images with more than one
        cell. If a module runs several times, its last run counts. A container and its last part,
        whose map it returns, are both listed.

    Raises:
        LookupError: no gradient leads from the scores to the images.
        TypeError: the model is not a module, or the images are not a floating-point tensor.
        ValueError: the images are not (N, C, *size), or the model is in training mode.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))
        >>> for layer in find_layers(net.eval(), torch.rand(2, 3, 8, 8)):
        ...     print(layer.name, layer.type, layer.channels, layer.grid, layer.all_evidence)
        0 Conv2d 8 (6, 6) True
        1 ReLU 8 (6, 6) True
    """
    checked = _checked(model, images, keywords)
    measured = MeasuredLayers()

    def attempt(images: Tensor, targets: Targets) -> list[Layer]:
        probe = Probe(checked, images, inputs, keywords, "all" if targets is None else targets)
        try:
            traced = trace(probe)
        except (TypeError, ValueError):
            if targets is not None:
                raise
            everything = functools.partial(all_outputs, n=len(images))
            probe = Probe(checked, images, inputs, keywords, everything)
            traced = trace(probe)

        def place(name: str, reading: Reading) -> Registration:
            site = Site(name, reading.layout)
            return measured.place(
                probe,
                site,
                reading.channels,
                reading.grid,
                proven=reading.proven,
                span=reading.span,
            )

        return list_layers(
            traced, lambda names: measured.readings(probe, names), place if measure else None
        )

    def search() -> list[Layer]:
        with torch.inference_mode(False):
            return on_few_rows(attempt, images, targets, cut=not inputs and not keywords)

    return undisturbed(search)


def find_default_layer(
    model: nn.Module, images: Tensor, *inputs: Any, targets: Targets = None, **keywords: Any
) -> str:
    """Return the name of the default layer, which explainers use if the caller names none.

    It is the last layer whose output is a map of the images and through which all evidence for the
    scores passes.

    Args:
        model: any module; it is not changed.
        images: (N, C, *size), preprocessed as the model expects.
        inputs: further positional inputs of the model.
        targets: the scores to explain. All classes share one default layer; a callable may have
            another.
        keywords: keyword inputs of the model.

    Raises:
        LookupError: no layer qualifies; the message says why.
        TypeError: the model is not a module, or the images are not a floating-point tensor.
        ValueError: the images are not (N, C, *size), or the model is in training mode.
    """
    checked = _checked(model, images, keywords)

    def search() -> str:
        with torch.inference_mode(False):
            return MeasuredLayers().default(Probe(checked, images, inputs, keywords, targets))

    return undisturbed(search)


def _checked(model: nn.Module, images: Tensor, keywords: dict[str, Any]) -> nn.Module:
    checked = check_model(model)
    check_images(images)
    check_batched(checked, images)
    check_mode(checked)
    check_keywords(checked, keywords)
    return checked


def list_layers(
    traced: Trace, read: Read, place: Callable[[str, Reading], Registration] | None = None
) -> list[Layer]:
    """List the layers whose outputs are maps of the images, in the order in which they finished.

    Args:
        traced: a pass with gradients from the images to the scores to explain.
        read: reads the outputs of layers as maps.
        place: measures where a layer's cells lie; None: not measured.

    Raises:
        LookupError: no gradient leads from the scores to the images.
    """
    evidence = Evidence(traced)
    calls = [call for call in traced.last_calls() if len(call.shape) > 2]
    calls = [call for call in calls if evidence.from_images(call)]
    readings = read([call.name for call in calls])
    layers: list[Layer] = []
    for call in calls:
        reading = readings[call.name]
        if reading.layout is None or math.prod(reading.grid) == 1:
            continue
        cells = evidence.cells_reached(call, reading.layout) if evidence.all_through(call) else 0
        placed = place(call.name, reading) if place else None
        stretched = stretched_pitch(traced.size, reading.grid, reading.span)
        layers.append(
            Layer(
                name=call.name,
                type=type(call.module).__name__,
                channels=reading.channels,
                grid=reading.grid,
                all_evidence=cells >= CELLS_REACHED,
                pitch=placed.pitch if placed else stretched,
                receptive_field=placed.receptive_field if placed else None,
                proven=reading.proven,
            )
        )
    return layers
