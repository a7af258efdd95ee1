"""Runs a model to measure its layers' layouts and the positions of their cells."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from .. import geometry
from ..geometry import Reading, centres
from ..geometry.span import UNKNOWN, span
from ..intercept import FirstInput, FirstInputs
from ..model import layer, named
from ..probe import Probe, Site
from ..probe.captures import first_tensor
from ..probe.inputs import follow
from ..probe.randomness import check_repeatable
from ..registration import Registration, Span
from ..targets import select

_A = TypeVar("_A")
_B = TypeVar("_B")

#: Number of images in a batch when cells' positions are measured.
_ROWS = 8
#: Smallest change of another image's score that counts as mixing, as a fraction of the changed
#: image's own change; and largest change that counts as rounding, as a fraction of the top score.
_MIXED, _SMALL = 1e-2, 1e-4


def measure_registration(
    probe: Probe,
    site: Site,
    grid: tuple[int, ...],
    channels: int,
    *,
    proven: bool,
    covered: Span | None = None,
) -> Registration:
    """Measure where a layer's cells lie, see :func:`camlens.geometry.centres.measure_place`."""
    images = probe.images

    def gradients(images: Tensor, cells: Tensor, signs: Tensor) -> Tensor:
        return probe.cell_gradients(site, images, cells, signs)

    def measured(rows: int) -> Registration:
        return centres.measure_place(
            gradients, images, grid, channels, proven=proven, span=covered, rows=rows
        )

    return _few_or_all(probe, measured, _ROWS, len(images))


def measure_layers(probe: Probe, names: Sequence[str]) -> tuple[dict[str, Reading], bool]:
    """Measure readings on two of the images, or on all of them if the model needs that.

    Returns:
        Readings by layer name, and whether the score of an image depends on the other images.
    """
    finite = probe.images.isfinite().flatten(1).all(1)
    if not finite.all():
        broken = (~finite).nonzero().flatten().tolist()
        raise ValueError(f"the images {broken[:5]} have values that are not finite (NaN, infinite)")
    modules = {
        name: type(module)
        for name, module in named(probe.model).items()
        if not isinstance(module, torch.jit.ScriptModule)
    }
    for name in names:
        layer(probe.model, name)  # raises an error for a layer that takes no hooks

    def measured(fixed: bool) -> tuple[_Runs, dict[str, Reading]]:
        runs = _Runs(probe)
        how: dict[str, Any] = {"kinds": modules, "reverse": runs.reverse, "span": runs.span}
        return runs, geometry.measure(runs.run, names, probe.images, fixed=fixed, **how)

    runs, readings = _few_or_all(probe, measured, False, True)
    if mixed := runs.mixes_images():
        check_repeatable(probe)
    for name in runs.parts.keys() & readings.keys():
        if readings[name].layout is None:
            count, n = runs.parts[name]
            reason = (
                f"layer {name!r} runs {count} times in a pass of {n} images, with a part of them "
                "each time, and camlens reads the last run only: explain one image at a time, and "
                "pass layout=camlens.layouts.nchw or another function that returns (N, C, *grid)"
            )
            readings[name] = dataclasses.replace(readings[name], reason=reason)
    return readings, mixed


def measure_spans(probe: Probe, names: Sequence[str]) -> dict[str, Span | None]:
    """Measure which part of the images each layer covers, see :meth:`_Runs.span`.

    It takes one forward pass of two images, and another one if the model changes their size.
    """

    def measured(images: Tensor) -> dict[str, Span | None]:
        runs = _Runs(probe)
        runs.run(images, names)
        return {name: runs.span(name) for name in names}

    return _few_or_all(probe, measured, probe.images[:2], probe.images)


def _few_or_all(probe: Probe, measured: Callable[[_A], _B], few: _A, every: _A) -> _B:
    """Measure on few images, or on all if the model needs that or takes further inputs."""
    if probe.inputs or probe.keywords:
        return measured(every)
    try:
        return measured(few)
    except Exception:  # a model may take no other number of images, and fail in any way
        return measured(every)


class _Runs:
    """Runs the model for the measurement of its layers, and keeps its first three outputs."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        #: For the unchanged images; with image 0 changed; in reverse order.
        self.outputs: list[Any] = []
        #: By layer that runs with a part of the images each time: its runs, and all images.
        self.parts: dict[str, tuple[int, int]] = {}
        #: The images of the first run, and what the model's first layers got of them.
        self._images: Tensor | None = None
        self._found: list[FirstInput] = []
        #: By layer: the size of the images so far if it does not mix their pixels, or else how many
        #: of the model's first layers ran before it ended.
        self._stages: dict[str, torch.Size | int] = {}

    def run(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return the outputs of layers, without gradients."""
        return self._run(self.probe, images, layers)

    def reverse(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return the outputs for the images, and inputs that follow them, in reverse order."""
        rows = torch.arange(len(images), device="cpu").flip(0)
        probe = self.probe
        try:
            followers = probe.followers()
        except ValueError:  # it is unknown which inputs have a row for each image
            return {}
        inputs, keywords = follow(probe.inputs, probe.keywords, rows, followers, len(images))
        turned = Probe(probe.model, probe.images, inputs, keywords)
        return self._run(turned, images[rows.to(images.device)], layers)

    def _run(self, probe: Probe, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = {}
        counts = collections.Counter[str]()
        stages: dict[str, torch.Size | int] = {}

        def keep(name: str, _: tuple[Any, ...], output: Any) -> None:
            tensor = first_tensor(output)
            outputs.pop(name, None)
            counts[name] += 1
            if tensor is not None:
                outputs[name] = tensor.detach().clone()
                source = inputs.source(tensor)
                stages[name] = len(inputs.found) if source is None else source.shape

        inputs = FirstInputs(images.shape)
        returned, _ = probe.execute(layers, keep, images, mode=inputs)
        if self._images is None:
            self._images, self._found = images, inputs.found
        self._stages = stages | self._stages
        if len(self.outputs) < 3:
            self.outputs.append(returned)
        n = len(images)
        for name, tensor in outputs.items():
            rows = len(tensor) if tensor.ndim else 1
            if counts[name] > 1 and rows != n and n in (counts[name], counts[name] * rows):
                self.parts[name] = counts[name], n
        return outputs

    def span(self, name: str) -> Span | None:
        """Return the part of the images that a layer covers, after a run.

        It is None for the whole image, and unknown if the model makes several inputs of the images
        that cover different parts, as one for each of its branches.
        """
        stage = self._stages.get(name, 0)
        if isinstance(stage, int):
            shapes = [found.shape for found in self._found[:stage]]
            before = list(range(stage))
        else:
            shapes = [stage]
            before = [i for i, found in enumerate(self._found) if found.shape[1:] == stage[1:]]
        if not any(map(self._resized, shapes)):
            return None
        spans = {self._spans[i] for i in before}
        return spans.pop() if len(spans) == 1 else UNKNOWN

    def _resized(self, shape: torch.Size) -> bool:
        first, last = tuple(shape[2:]), tuple(shape[1:-1])
        if shape[1] == self.probe.images.shape[1]:
            return first != self.probe.size
        return self.probe.size not in (first, last)

    @functools.cached_property
    def _spans(self) -> list[Span | None]:
        """The part of the images that each of the model's first layers covers."""
        unknown = [UNKNOWN if self._resized(found.shape) else None for found in self._found]
        # Further inputs may decide which part, and the measurement is kept for other values.
        if self._images is None or self.probe.inputs or self.probe.keywords:
            return unknown
        leaf = self._images.detach().clone().requires_grad_()
        inputs = FirstInputs(leaf.shape, unbroken=True)
        try:
            self.probe.execute([], lambda *_: None, leaf.clone(), gradients=True, mode=inputs)
            if [found.shape for found in inputs.found] != [found.shape for found in self._found]:
                return unknown
            return [self._measured(found, leaf) for found in inputs.found]
        except Exception:  # a model that does not record gradients may fail in any way
            return unknown

    def _measured(self, found: FirstInput, leaf: Tensor) -> Span | None:
        if not self._resized(found.shape):
            return None
        if found.tensor is None or not found.tensor.requires_grad or found.tensor.is_complex():
            return UNKNOWN  # NumPy made it, say
        return span(found.tensor, leaf, found.padding)

    def mixes_images(self) -> bool:
        """Return whether a change of image 0, or of the images' order, changes other scores."""
        given = callable(self.probe.targets)
        scores = [self._scores(outputs) for outputs in self.outputs[: 2 if given else 3]]
        base, changed, *turned = [s if s is None else s.flatten(1) for s in [*scores, None, None]]
        if base is None or changed is None or len(base) < 2 or base.shape != changed.shape:
            return False
        moved = (changed - base).abs().amax(1)
        small = _SMALL * base.abs().amax()
        if moved[1:].max() > max(_MIXED * moved[0], small):
            return True
        if turned[0] is None or turned[0].shape != base.shape:
            return False
        # A callable may hold values of these images in order, so the order is not reversed for it.
        differ = (turned[0].flip(0) - base).abs().max()
        apart = (base.flip(0) - base).abs().max()
        return bool(differ > max(_MIXED * apart, small))

    @torch.no_grad()
    def _scores(self, outputs: Any) -> Tensor | None:
        """Return (N, K) scores, or None if the targets fail for this batch."""
        targets = self.probe.targets if callable(self.probe.targets) else "all"
        try:
            scores = select(outputs, targets).scores.float()
        except Exception:  # a callable of another number of images may fail in any way
            return None
        return scores if bool(scores.isfinite().all()) else None
