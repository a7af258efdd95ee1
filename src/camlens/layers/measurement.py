"""Runs a model to measure its layers' layouts and the positions of their cells."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import geometry
from ..geometry import Reading, centres
from ..geometry.span import span
from ..intercept import OwnInput
from ..model import layer, named
from ..probe import Probe, Site
from ..probe.captures import first_tensor
from ..probe.inputs import follow
from ..probe.randomness import check_repeatable
from ..registration import Registration, Span
from ..targets import select

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

    if probe.inputs or probe.keywords:
        return measured(len(images))
    try:
        return measured(_ROWS)
    except Exception:  # a model may take no other number of images, and fail in any way
        return measured(len(images))


def measure_layers(probe: Probe, names: Sequence[str]) -> tuple[dict[str, Reading], bool]:
    """Measure readings on two of the images, or on all of them if the model needs that.

    Returns:
        Readings by layer name, and whether the score of an image depends on the other images.
    """
    finite = probe.images.isfinite().flatten(1).all(1)
    if not finite.all():
        broken = (~finite).nonzero().flatten().tolist()
        raise ValueError(f"the images {broken[:5]} have values that are not finite (NaN, infinite)")
    runs = _Runs(probe)
    modules = {
        name: type(module)
        for name, module in named(probe.model).items()
        if not isinstance(module, torch.jit.ScriptModule)
    }
    for name in names:
        layer(probe.model, name)  # raises an error for a layer that takes no hooks
    fixed = bool(probe.inputs or probe.keywords)
    how: dict[str, Any] = {"kinds": modules, "reverse": runs.reverse, "span": runs.span}
    try:
        readings = geometry.measure(runs.run, names, probe.images, fixed=fixed, **how)
    except Exception:  # a model may take no other number of images, and fail in any way
        if fixed:
            raise
        runs.outputs.clear()
        runs.parts.clear()
        readings = geometry.measure(runs.run, names, probe.images, fixed=True, **how)
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
    """Measure which part of the images each layer covers, without its reading; None: the whole.

    It takes one forward pass, and a second one if the model changes the size of its images.
    """
    runs = _Runs(probe)
    runs.run(probe.images, names)
    return {name: runs.span(name) or None for name in names}


class _Runs:
    """Runs the model for the measurement of its layers, and keeps its first three outputs."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        #: For the unchanged images; with image 0 changed; in reverse order.
        self.outputs: list[Any] = []
        #: By layer that runs with a part of the images each time: its runs, and all images.
        self.parts: dict[str, tuple[int, int]] = {}
        #: Layers that run before the model's own input is complete.
        self._early: set[str] = set()
        #: Images that the model accepts, if it changes their size.
        self._resized: Tensor | None = None

    def run(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return the outputs of layers, without gradients."""
        return self._run(self.probe, images, layers)

    def reverse(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return the outputs for the images, and inputs that follow them, in reverse order."""
        rows = torch.arange(len(images)).flip(0)
        probe = self.probe
        try:
            followers = probe.followers()
        except ValueError:  # it is unknown which inputs have a row for each image
            return {}
        inputs, keywords = follow(probe.inputs, probe.keywords, rows, followers)
        turned = Probe(probe.model, probe.images, inputs, keywords)
        return self._run(turned, images[rows.to(images.device)], layers)

    def _run(self, probe: Probe, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = {}
        counts = collections.Counter[str]()

        def keep(name: str, _: tuple[Any, ...], output: Any) -> None:
            tensor = first_tensor(output)
            outputs.pop(name, None)
            counts[name] += 1
            if tensor is not None:
                outputs[name] = tensor.detach().clone()
            if not own.complete:
                self._early.add(name)

        own = OwnInput(images.shape)
        returned, _ = probe.execute(layers, keep, images, mode=own)
        if own.complete and own.tensor is not None and own.tensor.shape != images.shape:
            self._resized = images if self._resized is None else self._resized
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

        It is None for the whole image, and empty if it is unknown.
        """
        return None if name in self._early else self._own_span

    @functools.cached_property
    def _own_span(self) -> Span | None:
        """The part of the images that the model's own input covers, as in :meth:`span`."""
        if self._resized is None:
            return None
        leaf = self._resized.detach().clone().requires_grad_()
        own = OwnInput(leaf.shape, unbroken=True)
        try:
            self.probe.execute([], lambda *_: None, leaf.clone(), gradients=True, mode=own)
        except Exception:  # a model that does not record gradients may fail in any way
            return ()
        if own.tensor is None or not own.tensor.requires_grad:  # made by NumPy, say
            return ()
        return span(own.tensor, leaf, own.padding)

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
