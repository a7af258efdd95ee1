"""Cache of layer measurements, one for each layer and input shape."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from ..geometry import Reading
from ..geometry.span import UNKNOWN
from ..layouts import Layout
from ..probe import Pass, Probe, Site
from ..probe.hooks import in_evaluation
from ..registration import Registration, Span
from ..targets import Targets
from .default_layer import default_layer, on_few_rows
from .measurement import measure_layers, measure_registration, measure_spans
from .trace import trace

#: Number of callable targets whose default layers are cached.
_CALLABLES = 16


#: The shape of an image, with the shapes or values of the model's further inputs.
_Inputs = tuple[Hashable, ...]


class MeasuredLayers:
    """Cached readings, default layers and registrations of one model; threads may share it."""

    def __init__(self) -> None:
        self._readings: dict[tuple[str, _Inputs], Reading] = {}
        self._mixed: set[tuple[_Inputs, _Scores]] = set()
        self._defaults: dict[tuple[_Inputs, _Scores], str] = {}
        self._spans: dict[tuple[str, _Inputs], Span | None] = {}
        self._registrations: dict[tuple[str, _Inputs], Registration] = {}
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        """Omit all measurements: another process may use another device and measures again."""
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start without measurements."""
        self.__init__()  # type: ignore[misc]

    def sites(
        self, probe: Probe, names: Sequence[str] | None, layout: Layout | None
    ) -> tuple[Site, ...]:
        """Return the layers to capture in a call, and how to read them.

        Args:
            probe: the call's model, images and targets.
            names: layers; None: the default layer.
            layout: how to read them; None: as measured.

        Raises:
            LookupError: there is no default layer, or a layer did not run.
            ValueError: a layer's output is not a map of the images.
        """
        names = (self.default(probe),) if names is None else names
        if layout is not None:
            return tuple(Site(name, layout) for name in names)
        readings = self.readings(probe, names)
        for name in names:
            if readings[name].layout is None:
                # This raises a separate error if it did not run or returned no float tensor.
                probe.run(sites=[Site(name)], start=None)
                raise ValueError(readings[name].reason)
        return tuple(Site(name, readings[name].layout) for name in names)

    def readings(self, probe: Probe, names: Sequence[str]) -> Mapping[str, Reading]:
        """Return readings of layers by name, measuring those that are not cached."""
        shape = inputs_key(probe)
        scores = _Scores(probe.targets if callable(probe.targets) else None)
        known = self._readings
        if any((name, shape) not in known for name in names):
            with self._lock:
                missing = [name for name in names if (name, shape) not in known]
                if missing:
                    measured, mixed = in_evaluation(
                        probe.model, lambda: measure_layers(probe, missing)
                    )
                    known.update({(name, shape): r for name, r in measured.items()})
                    if mixed:
                        self._mixed.add((shape, scores))
        if (shape, scores) in self._mixed and len(probe.images) > 1:
            raise ValueError(
                "the scores of an image change with the other images of the batch, or with "
                "the order of the images: explain the images one by one, or choose "
                "scores without a mean, softmax or sorting over the batch"
            )
        return {name: known[name, shape] for name in names}

    def default(self, probe: Probe) -> str:
        """Return the default layer.

        The search runs once for each input shape, for all classes together, and once for each
        callable target.

        Raises:
            LookupError: no layer qualifies.
        """
        shape = inputs_key(probe)
        scores = probe.targets if callable(probe.targets) else None
        key = (shape, _Scores(scores))
        if key not in self._defaults:
            with self._lock:
                if key not in self._defaults:
                    name = in_evaluation(probe.model, lambda: self._search(probe))
                    of_callables = [k for k in self._defaults if k[1].value is not None]
                    if len(of_callables) >= _CALLABLES:
                        self._defaults.pop(of_callables[0])
                    self._defaults[key] = name
        return self._defaults[key]

    def registration(
        self, probe: Probe, traced: Pass, kind: Literal["stretched", "measured"]
    ) -> Registration:
        """Return where the cells of the layers' map lie.

        Raises:
            ValueError: a measured registration of several layers is requested, or a map is a single
                cell or its number of axes differs from that of the images.
        """
        shape = inputs_key(probe)
        grids = [tuple(maps.shape[2:]) for maps in traced.activations()]
        for site, cells in zip(traced.sites, grids, strict=True):
            if len(cells) != len(probe.size):
                raise ValueError(
                    f"layer {site.name!r} is read as a grid of {cells} for images of {probe.size}: "
                    f"expected equal numbers of axes, got {len(cells)} and {len(probe.size)}; pass "
                    "another layout="
                )
            if math.prod(cells) == 1:
                raise ValueError(
                    f"layer {site.name!r} gives a single cell for images of {probe.size}, which "
                    "has no positions to show: choose an earlier layer "
                    "(camlens.find_layers(model, images) lists the grids) or larger images"
                )
        grid = max(grids, key=math.prod)
        readings = [self._readings.get((site.name, shape)) for site in traced.sites]
        proven = all(reading is not None and reading.proven for reading in readings)
        spans = set(self.spans(probe, [site.name for site in traced.sites]).values())
        if len(spans) > 1:
            raise ValueError(
                f"the layers {[site.name for site in traced.sites]} cover different parts of the "
                "images, as the model pads or crops the input of some: explain them one by one"
            )
        span = spans.pop()
        known, span = span != UNKNOWN, span or None
        if kind == "stretched":
            return Registration.stretched(probe.size, grid, proven=proven, span=span)
        if len(traced.sites) > 1:
            raise ValueError(
                'registration="measured" places the map of a single layer, got '
                f'{len(traced.sites)}: explain them one by one, or use "stretched"'
            )
        site, channels = traced.sites[0], traced.activations()[0].shape[1]
        # A layout that the caller passed is trusted for the order of the cells.
        proven = proven or (readings[0] is None and known)
        return self.place(probe, site, channels, grid, proven=proven, span=span)

    def spans(self, probe: Probe, names: Sequence[str]) -> Mapping[str, Span | None]:
        """Return which part of the images each layer covers, see :class:`Registration`.

        It is ``UNKNOWN`` for a layer without a reading if it cannot be measured.
        """
        shape = inputs_key(probe)
        known = {name: self._readings.get((name, shape)) for name in names}
        unread = [name for name, reading in known.items() if reading is None]
        if any((name, shape) not in self._spans for name in unread):
            with self._lock:
                missing = [name for name in unread if (name, shape) not in self._spans]
                measured = in_evaluation(probe.model, lambda: measure_spans(probe, missing))
                self._spans.update({(name, shape): span for name, span in measured.items()})
        return {
            name: self._spans[name, shape] if reading is None else reading.span
            for name, reading in known.items()
        }

    def place(
        self,
        probe: Probe,
        site: Site,
        channels: int,
        grid: tuple[int, ...],
        *,
        proven: bool,
        span: Span | None,
    ) -> Registration:
        """Return where the cells of one layer lie, measuring if it is not cached."""
        key = (site.name, inputs_key(probe))
        if key not in self._registrations:
            with self._lock:
                if key not in self._registrations:
                    self._registrations[key] = in_evaluation(
                        probe.model,
                        lambda: measure_registration(
                            probe, site, grid, channels, proven=proven, covered=span
                        ),
                    )
        return self._registrations[key]

    def _search(self, probe: Probe) -> str:
        def attempt(images: Tensor, targets: Targets) -> str:
            part = Probe(probe.model, images, probe.inputs, probe.keywords, targets)
            return default_layer(trace(part), lambda names: self.readings(part, names))

        targets = probe.targets if callable(probe.targets) else "all"
        alone = not probe.inputs and not probe.keywords
        return on_few_rows(attempt, probe.images, targets, cut=alone)


@dataclasses.dataclass(frozen=True)
class _Scores:
    """A callable target, compared by identity and kept alive; None for classes."""

    value: Callable[[Any], Tensor] | None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Scores) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def inputs_key(probe: Probe) -> _Inputs:
    """Return a cache key, equal for calls that run the same part of the model on equal shapes."""
    if not probe.inputs and not probe.keywords:
        return tuple(probe.images.shape[1:])
    further = [*enumerate(probe.inputs), *sorted(probe.keywords.items())]
    return (*probe.images.shape[1:], *((name, _value_key(value)) for name, value in further))


def _value_key(value: Any) -> Hashable:
    if isinstance(value, Tensor):
        return (tuple(value.shape[1:]), value.dtype)  # the first dimension may be the batch
    if value is None or isinstance(value, (bool, int, float, str)):
        return (type(value).__name__, value)
    return type(value).__name__
