"""Cache of layer measurements, one for each layer and input shape."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from .. import geometry
from ..geometry import Reading, centres
from ..layouts import Layout
from ..model import layer, named
from ..probe import Pass, Probe, Site
from ..probe.captures import first_tensor
from ..probe.hooks import in_evaluation
from ..probe.inputs import follow
from ..registration import Registration
from ..targets import Targets, select
from .default_layer import default_layer, on_few_rows
from .trace import trace

#: Default layers are kept for so many targets that are callables.
_CALLABLES = 16
#: Images that run at once where cells are placed.
_ROWS = 8
#: Change of a score, as a fraction of the changed image's, that shows that images are mixed; and of
#: the largest score, below which a change is rounding.
MIXED, SMALL = 1e-2, 1e-4


#: The shape of an image, and what is known of the model's further inputs.
_Inputs = tuple[Hashable, ...]


class MeasuredLayers:
    """Readings, default layers and registrations of one model's layers; shared by threads."""

    def __init__(self) -> None:
        self._readings: dict[tuple[str, _Inputs], Reading] = {}
        self._mixed: set[_Inputs] = set()
        self._defaults: dict[tuple[_Inputs, _Scores], str] = {}
        self._registrations: dict[tuple[str, _Inputs], Registration] = {}
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what can be measured again: another process may run another device."""
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start with nothing measured."""
        self.__init__()  # type: ignore[misc]

    def sites(
        self, probe: Probe, names: Sequence[str] | None, layout: Layout | None
    ) -> tuple[Site, ...]:
        """Return the layers to capture in a call, and how to read them.

        Args:
            probe: the call.
            names: layers; None: the default layer.
            layout: how to read them; None: as measured.

        Raises:
            LookupError: there is no default layer, or a layer did not run.
            ValueError: a layer's output is no map of the images.
        """
        names = (self.default(probe),) if names is None else names
        if layout is not None:
            return tuple(Site(name, layout) for name in names)
        readings = self.readings(probe, names)
        for name in names:
            if readings[name].layout is None:
                # That it did not run, or gave no floating-point tensor, is an error of its own.
                probe.run(sites=[Site(name)], start=None)
                raise ValueError(readings[name].reason)
        return tuple(Site(name, readings[name].layout) for name in names)

    def readings(self, probe: Probe, names: Sequence[str]) -> Mapping[str, Reading]:
        """Return what layers' outputs are, measured where that is not known."""
        shape = _inputs_key(probe)
        known = self._readings
        if any((name, shape) not in known for name in names):
            with self._lock:
                missing = [name for name in names if (name, shape) not in known]
                if missing:
                    measured, mixed = in_evaluation(probe.model, lambda: _measure(probe, missing))
                    known.update({(name, shape): r for name, r in measured.items()})
                    if mixed:
                        self._mixed.add(shape)
        if shape in self._mixed and len(probe.images) > 1:
            raise ValueError(
                "the scores of an image change with the other images of the batch, or do not "
                "follow the images into another order: explain the images one by one, or choose "
                "scores without a mean, softmax, sorting or the like over the batch"
            )
        return {name: known[name, shape] for name in names}

    def default(self, probe: Probe) -> str:
        """Return the layer to explain where none is named.

        It is searched once for each input shape, for all classes together, and once for each
        callable that makes scores.

        Raises:
            LookupError: no layer will do.
        """
        shape = _inputs_key(probe)
        scores = probe.targets if callable(probe.targets) else None
        key = (shape, _Scores(scores))
        if key not in self._defaults:
            with self._lock:
                if key not in self._defaults:
                    name = in_evaluation(probe.model, lambda: self._search(probe))
                    kept = [k for k in self._defaults if k[1].value is not None]
                    if len(kept) >= _CALLABLES:
                        self._defaults.pop(kept[0])
                    self._defaults[key] = name
        return self._defaults[key]

    def registration(
        self, probe: Probe, traced: Pass, kind: Literal["stretched", "measured"]
    ) -> Registration:
        """Return where the cells of the layers' map lie.

        Raises:
            ValueError: it is to be measured for several layers, or a map is a single cell or has
                another number of axes than the images.
        """
        shape = _inputs_key(probe)
        grids = [tuple(maps.shape[2:]) for maps in traced.activations()]
        for site, cells in zip(traced.sites, grids, strict=True):
            if len(cells) != len(probe.size):
                raise ValueError(
                    f"layer {site.name!r} is read as a grid of {cells} for images of {probe.size}: "
                    f"expected as many axes, got {len(cells)} and {len(probe.size)}; pass another "
                    "layout="
                )
            if math.prod(cells) == 1:
                raise ValueError(
                    f"layer {site.name!r} gives a single cell for images of {probe.size}, which "
                    "says nothing about where: choose an earlier layer "
                    "(camlens.find_layers(model, images) lists the grids) or larger images"
                )
        grid = max(grids, key=math.prod)
        readings = [self._readings.get((site.name, shape)) for site in traced.sites]
        proven = all(reading is not None and reading.proven for reading in readings)
        if kind == "stretched":
            return Registration.stretched(probe.size, grid, proven=proven)
        if len(traced.sites) > 1:
            raise ValueError(
                'registration="measured" places the map of a single layer, got '
                f"{len(traced.sites)}: explain them one by one, or stretched"
            )
        site, channels = traced.sites[0], traced.activations()[0].shape[1]
        # Who says how a layer is read, answers for its cells' order.
        return self.place(probe, site, channels, grid, proven=proven or readings[0] is None)

    def place(
        self, probe: Probe, site: Site, channels: int, grid: tuple[int, ...], *, proven: bool
    ) -> Registration:
        """Return where the cells of one layer lie, measured where that is not known."""
        key = (site.name, _inputs_key(probe))
        if key not in self._registrations:
            with self._lock:
                if key not in self._registrations:
                    self._registrations[key] = in_evaluation(
                        probe.model,
                        lambda: measure_registration(probe, site, grid, channels, proven=proven),
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
    """A callable that makes scores, compared by identity and kept alive; None for classes."""

    value: Callable[[Any], Tensor] | None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Scores) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def _inputs_key(probe: Probe) -> _Inputs:
    """Return what two calls share that run the same part of the model on inputs of one shape."""
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


def measure_registration(
    probe: Probe, site: Site, grid: tuple[int, ...], channels: int, *, proven: bool
) -> Registration:
    """Measure where a layer's cells lie, see :func:`camlens.geometry.centres.measure_place`."""
    images = probe.images

    def gradients(images: Tensor, cells: Tensor, signs: Tensor) -> Tensor:
        return probe.cell_gradients(site, images, cells, signs)

    def measured(rows: int) -> Registration:
        return centres.measure_place(gradients, images, grid, channels, proven=proven, rows=rows)

    if probe.inputs or probe.keywords:
        return measured(len(images))
    try:
        return measured(_ROWS)
    except Exception:  # a model may take no other number of images, and fail in any way
        return measured(len(images))


def _measure(probe: Probe, names: Sequence[str]) -> tuple[dict[str, Reading], bool]:
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
        layer(probe.model, name)  # its error says why a layer takes no hooks
    fixed = bool(probe.inputs or probe.keywords)
    how: dict[str, Any] = {"kinds": modules, "reverse": runs.reverse}
    try:
        readings = geometry.measure(runs.run, names, probe.images, fixed=fixed, **how)
    except Exception:  # a model may take no other number of images, and fail in any way
        if fixed:
            raise
        runs.outputs.clear()
        readings = geometry.measure(runs.run, names, probe.images, fixed=True, **how)
    return readings, runs.mixes_images()


class _Runs:
    """Runs the model for the measurement of its layers, and keeps what it returned first."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        #: For the unchanged images; with image 0 changed; in reverse order.
        self.outputs: list[Any] = []

    def run(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return the outputs of layers, without gradients."""
        return self._run(self.probe, images, layers)

    def reverse(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return the outputs for the images in reverse order; of further inputs that order too."""
        rows = torch.arange(len(images)).flip(0)
        probe = self.probe
        try:
            followers = probe.followers()
        except ValueError:  # which inputs go with the images cannot be told
            return {}
        inputs, keywords = follow(probe.inputs, probe.keywords, rows, followers)
        turned = Probe(probe.model, probe.images, inputs, keywords)
        return self._run(turned, images[rows.to(images.device)], layers)

    def _run(self, probe: Probe, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = {}

        def keep(name: str, _: tuple[Any, ...], output: Any) -> None:
            tensor = first_tensor(output)
            outputs.pop(name, None)
            if tensor is not None:
                outputs[name] = tensor.detach().clone()

        returned, _ = probe.execute(layers, keep, images)
        if len(self.outputs) < 3:
            self.outputs.append(returned)
        return outputs

    def mixes_images(self) -> bool:
        """Return whether a change of image 0, or of the images' order, shows in other scores."""
        given = callable(self.probe.targets)
        scores = [self._scores(outputs) for outputs in self.outputs[: 2 if given else 3]]
        base, changed, *turned = [s if s is None else s.flatten(1) for s in [*scores, None, None]]
        if base is None or changed is None or len(base) < 2 or base.shape != changed.shape:
            return False
        moved = (changed - base).abs().amax(1)
        small = SMALL * base.abs().amax()
        if moved[1:].max() > max(MIXED * moved[0], small):
            return True
        if turned[0] is None or turned[0].shape != base.shape:
            return False
        # A callable may hold values of these images in their order, so it is not turned.
        differ = (turned[0].flip(0) - base).abs().max()
        apart = (base.flip(0) - base).abs().max()
        return bool(differ > max(MIXED * apart, small))

    @torch.no_grad()
    def _scores(self, outputs: Any) -> Tensor | None:
        """Return (N, K) scores, or None where the targets are of this very batch."""
        targets = self.probe.targets if callable(self.probe.targets) else "all"
        try:
            scores = select(outputs, targets).scores.float()
        except Exception:  # a callable of another number of images may fail in any way
            return None
        return scores if bool(scores.isfinite().all()) else None
