"""Which layers can be explained, and the one that is explained unless another is named.

The default layer answers a question: the last layer, on the way from the images to the explained
score, whose output is a map of the image and through which all evidence passes. One traced pass
(:class:`camlens.graph.Trace`) answers all of it but "a map of the image", which a reading says.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from .evidence import Evidence
from .graph import Site, Trace

T = TypeVar("T")

#: Rows of the images on which the default layer is sought: two, as a model may squeeze a single
#: row away, and as one row cannot show which axis is the batch.
SEARCH_ROWS = 2
#: A map of which the score reads a single cell (the largest of all, one pixel of a segmentation)
#: is a dot; the layer before it says what that cell looks at.
_CELLS_REACHED = 2
#: So many layers are named in the error where none will do.
_NAMED_IN_ERROR = 3
#: So many maps beside which evidence passes are looked for, for that error.
_LOOKED_AT_FOR_ERROR = 8
#: So many layers are read first.
_READ_AT_ONCE = 8

_RESAMPLING = (
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    *(nn.LPPool1d, nn.LPPool2d, nn.LPPool3d, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d),
    *(nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d, nn.Upsample),
)


class Reading(Protocol):
    """How a layer's output is read as maps of the images (:class:`camlens.geometry.Reading`)."""

    @property
    def layout(self) -> Callable[[Tensor], Tensor] | None:
        """From the output to (N, C, *grid); None if it is no map of the images."""

    @property
    def channels(self) -> int:
        """Number of channels C."""

    @property
    def grid(self) -> tuple[int, ...]:
        """Cells along each axis of the images."""

    @property
    def proven(self) -> bool:
        """Whether each cell was shown to look at a place of its own."""

    @property
    def reason(self) -> str:
        """Why the output is no map of the images, as the text of an error."""


class Place(Protocol):
    """Where a layer's cells lie on the images (:class:`camlens.registration.Registration`)."""

    @property
    def pitch(self) -> tuple[float, ...]:
        """Distance of neighbouring cells along each axis, in pixels."""

    @property
    def receptive_field(self) -> tuple[float, ...] | None:
        """Spread of what a cell responds to along each axis, in pixels."""


#: Readings of layers by name. It is asked of a few layers at a time, as they share their price.
Read = Callable[[Sequence[str]], Mapping[str, Reading]]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer that can be explained.

    Attributes:
        name: dotted name, as the explainers take it.
        type: class name of the module.
        channels: number of channels C.
        grid: cells along each spatial axis, such as (h, w).
        all_evidence: whether all evidence for the scores passes through the map: without it
            the scores would not depend on the images, and their gradient arrives at its cells.
        pitch: pixels from cell to cell along each axis: measured, or the images' size divided
            by the grid where it was not.
        receptive_field: spread, in pixels along each axis, of what a cell responds to; None
            unless measured.
        proven: whether gradients showed that each cell looks at a place of its own; otherwise
            the shape alone says that the output is a map.
    """

    name: str
    type: str
    channels: int
    grid: tuple[int, ...]
    all_evidence: bool
    pitch: tuple[float, ...]
    receptive_field: tuple[float, ...] | None
    proven: bool


def default_layer(trace: Trace, read: Read) -> str:
    """Return the name of the last layer that is a map of the images and carries all evidence.

    Layers are tried backwards, in the order in which they finished. Poolings, resizings and
    identities are passed over for the map that they pool or repeat, and so is a map that the
    model's output shows already: one on the grid of a segmentation's output, or its scores
    before they are resized.

    Args:
        trace: a pass with gradients from the images to the scores to explain.
        read: reads the outputs of layers as maps.

    Raises:
        LookupError: no layer will do; it says for the nearest ones why.
    """
    evidence = Evidence(trace)
    sites = [site for site in reversed(trace.last_calls()) if evidence.all_through(site)]
    sites = [site for site in sites if site.has_cells and not repeats_a_map(site)]
    failures: list[str] = []
    for some in _growing(sites):
        readings = read([site.name for site in some])
        for site in some:
            failure = _failure(site, readings[site.name], evidence)
            if failure is None:
                return site.name
            failures.append(failure)
    raise LookupError(_no_layer(failures, read, evidence))


def list_layers(
    trace: Trace, read: Read, place: Callable[[str, Reading], Place] | None = None
) -> list[Layer]:
    """List the layers whose outputs are maps of the images, in the order in which they finished.

    Args:
        trace: a pass with gradients from the images to the scores to explain.
        read: reads the outputs of layers as maps.
        place: measures where a layer's cells lie; None leaves that out.

    Raises:
        LookupError: no gradient leads from the scores to the images.
    """
    evidence = Evidence(trace)
    sites = [site for site in trace.last_calls() if len(site.shape) > 2]
    sites = [site for site in sites if evidence.from_images(site)]
    readings = read([site.name for site in sites])
    layers: list[Layer] = []
    for site in sites:
        reading = readings[site.name]
        if reading.layout is None or math.prod(reading.grid) == 1:
            continue
        cells = evidence.cells_reached(site, reading.layout) if evidence.all_through(site) else 0
        placed = place(site.name, reading) if place else None
        stretched = (s / g for s, g in zip(trace.size, reading.grid, strict=True))
        layers.append(
            Layer(
                name=site.name,
                type=type(site.module).__name__,
                channels=reading.channels,
                grid=reading.grid,
                all_evidence=cells >= _CELLS_REACHED,
                pitch=placed.pitch if placed else tuple(stretched),
                receptive_field=placed.receptive_field if placed else None,
                proven=reading.proven,
            )
        )
    return layers


def repeats_a_map(site: Site) -> bool:
    """Return whether a layer only pools, resizes or hands on a map that was there before it.

    A container does what its last part does: the tensor it returns is that part's.
    """
    repeated = site.repeats
    if repeated is not None and not repeated.name.startswith(f"{site.name}."):
        return True
    return isinstance(site.origin.module, _RESAMPLING) or _resamples(site.origin)


def _resamples(site: Site) -> bool:
    """Return whether a module without parameters gives its input's channels on other cells."""
    before, after = site.input_shape, site.shape
    return (
        before is not None
        and len(before) == len(after)
        and math.prod(before) != math.prod(after)
        and (before[:2] == after[:2] or (before[0], before[-1]) == (after[0], after[-1]))
        and next(site.module.parameters(), None) is None
    )


def _failure(site: Site, reading: Reading, evidence: Evidence) -> str | None:
    """Return why a layer through which all evidence passes is not the default, or None."""
    shown = f"{site.name!r} {site.shape}"
    if reading.layout is None:
        return reading.reason
    if math.prod(reading.grid) == 1:
        return f"{shown} is a single cell"
    cells = evidence.cells_reached(site, reading.layout)
    if cells < _CELLS_REACHED:
        return f"the gradient of the score arrives at {cells or 'none'} of the cells of {shown}"
    if evidence.shows_output(site, (reading.channels, *reading.grid)):
        return f"{shown} has the grid or the channels of the model's own output and repeats it"
    if not evidence.learned(site):
        return f"{shown} holds the images as they were given"
    return None


def _no_layer(failures: Sequence[str], read: Read, evidence: Evidence) -> str:
    """Return the text of the error where no layer will do."""
    sites = [s for s in evidence.trace.last_calls() if s.has_cells and s.repeats is None]
    partial = [s for s in reversed(sites) if evidence.partly_through(s)][:_LOOKED_AT_FOR_ERROR]
    readings = read([site.name for site in partial]) if partial else {}
    maps = [s for s in partial if math.prod(readings[s.name].grid) > 1]
    beside = [
        f"evidence also passes beside {site.name!r} {site.shape}"
        + (f", through {other!r}" if (other := evidence.detour(site)) else "")
        for site in maps[:_NAMED_IN_ERROR]
    ]
    reasons = [*failures[:_NAMED_IN_ERROR], *beside]
    size = " x ".join(map(str, evidence.trace.size))
    example = repr(maps[0].name) if maps else "layer"
    return (
        f"no layer is a map of the images ({size}) through which all evidence for the score "
        f"passes: {'; '.join(reasons) or 'no module gives more than a vector for each image'}. "
        f"Name the layer to explain, as in camlens.GradCAM(model, {example}); "
        "camlens.find_layers(model, images) lists those that can be explained"
    )


def _growing(sites: Sequence[Site]) -> Iterator[Sequence[Site]]:
    """Yield the sites a few at a time, more and more: the first ones are mostly enough."""
    start, count = 0, _READ_AT_ONCE
    while start < len(sites):
        yield sites[start : start + count]
        start, count = start + count, 4 * count


def on_few_rows(
    attempt: Callable[[Tensor, Any], T], images: Tensor, targets: Any, *, cut: bool
) -> T:
    """Search with the first rows of the images, and with all of them if that fails.

    Args:
        attempt: the search, a function of images and targets.
        images: (N, C, *size).
        targets: what to explain, as the explainers take it; rows are cut as the images are.
        cut: whether the images may be cut at all: not if the model takes further inputs, whose
            rows only the caller knows.
    """
    n = len(images)
    if not cut or n <= SEARCH_ROWS:
        return attempt(images, targets)
    try:
        return attempt(images[:SEARCH_ROWS], _first_rows(targets, n))
    except Exception as failure:  # the model's own error may be of any kind
        try:
            return attempt(images, targets)
        except Exception as error:
            error.add_note(
                f"camlens sought the default layer with the first {SEARCH_ROWS} of the {n} images "
                f"before, which failed as well ({type(failure).__name__}: {failure}); a layer "
                "given by name needs no search"
            )
            raise


def _first_rows(targets: Any, n: int) -> Any:
    one_for_all = targets is None or isinstance(targets, (int, str)) or callable(targets)
    if one_for_all or getattr(targets, "ndim", 1) == 0 or len(targets) != n:
        return targets
    return targets[:SEARCH_ROWS]
