"""Search for the default layer, which is explained unless the caller names another.

The default layer is the last layer between the images and the explained score whose output is a map
of the image and through which all evidence passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from ..geometry import Reading
from ..targets import Several
from .evidence import Evidence
from .trace import ModuleCall, Trace

T = TypeVar("T")

#: Number of images for the search. Two, as a model may squeeze a single row away, and as one row
#: cannot show which axis is the batch.
SEARCH_ROWS = 2
#: Smallest number of cells that the score must depend on. A score that reads one cell (the largest
#: of all, one pixel of a segmentation) would give a dot; an earlier layer shows its evidence.
CELLS_REACHED = 2
#: Number of layers that the error message names if no layer qualifies.
_NAMED_IN_ERROR = 2
#: Number of bypassed maps to search for that error message.
_LOOKED_AT_FOR_ERROR = 8
#: Number of layers in the first batch of readings.
_READ_AT_ONCE = 8

_RESAMPLING = (
    *(nn.modules.pooling._AvgPoolNd, nn.modules.pooling._MaxPoolNd, nn.modules.pooling._LPPoolNd),
    *(nn.modules.pooling._AdaptiveAvgPoolNd, nn.modules.pooling._AdaptiveMaxPoolNd),
    *(nn.modules.pooling._MaxUnpoolNd, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d),
    nn.Upsample,
)


#: Returns readings of layers by name, for a few layers at a time, which share the measurement.
Read = Callable[[Sequence[str]], Mapping[str, Reading]]


def default_layer(traced: Trace, read: Read) -> str:
    """Return the name of the last layer that is a map of the images and carries all evidence.

    Layers are tried backwards, in the order in which they finished. Poolings, resizings and
    identities are skipped in favour of the map that they pool or repeat. A map that only repeats
    the model's output is skipped too: one on the grid of a segmentation's output, or its scores
    before they are resized.

    Args:
        traced: a pass with gradients from the images to the scores to explain.
        read: reads the outputs of layers as maps.

    Raises:
        LookupError: no layer qualifies; the message gives the reasons for the nearest ones.
    """
    evidence = Evidence(traced)
    calls = [call for call in reversed(traced.last_calls()) if evidence.all_through(call)]
    calls = [call for call in calls if call.has_cells and not repeats_a_map(call)]
    failures: dict[ModuleCall, str] = {}
    for some in _growing(calls):
        readings = read([call.name for call in some])
        for call in some:
            failure = _failure(call, readings[call.name], evidence)
            if failure is None:
                return call.name
            failures.setdefault(call.origin, failure)
    raise LookupError(_no_layer(list(failures.values()), read, evidence))


def repeats_a_map(call: ModuleCall) -> bool:
    """Return whether a layer only pools, resizes or passes on the map of an earlier layer.

    A container returns the tensor of its last part, and counts as that part. The part may have the
    name of another container if they share it, as YOLO's blocks share one activation.
    """
    repeated = call.repeats
    if repeated is not None and repeated.node is not None and not _holds(call, repeated):
        return True
    return isinstance(call.origin.module, _RESAMPLING) or _resamples(call.origin)


def _holds(call: ModuleCall, part: ModuleCall) -> bool:
    """Return whether a layer's module contains that of another, under any name."""
    parts = (module for module in call.module.modules() if module is not call.module)
    return part.name.startswith(f"{call.name}.") or any(m is part.module for m in parts)


def _resamples(call: ModuleCall) -> bool:
    """Return whether a module without parameters returns its input's channels on another grid."""
    before, after = call.input_shape, call.shape
    return (
        before is not None
        and len(before) == len(after)
        and math.prod(before) != math.prod(after)
        and (before[:2] == after[:2] or (before[0], before[-1]) == (after[0], after[-1]))
        and next(call.module.parameters(), None) is None
    )


def _failure(call: ModuleCall, reading: Reading, evidence: Evidence) -> str | None:
    """Return why a layer through which all evidence passes is not the default, or None."""
    shown = f"{call.name!r} {call.shape}"
    if reading.layout is None:
        return reading.reason
    if math.prod(reading.grid) == 1:
        return f"{shown} is a single cell"
    cells = evidence.cells_reached(call, reading.layout)
    if cells >= CELLS_REACHED and len(evidence.trace.scores[0]) > 1:
        # Each score may depend on a different cell. If none is reached, the joint gradient decides.
        cells = evidence.cells_reached_by_top(call, reading.layout) or cells
    if cells < CELLS_REACHED:
        return f"the gradient of the score reaches {cells or 'none'} of the cells of {shown}"
    if evidence.shows_output(call, (reading.channels, *reading.grid)):
        return f"{shown} has the grid or the channels of the model's own output and repeats it"
    if not evidence.learned(call):
        return f"{shown} holds the unchanged images"
    return None


def _no_layer(failures: Sequence[str], read: Read, evidence: Evidence) -> str:
    """Return the error message if no layer qualifies."""
    calls = [s for s in evidence.trace.last_calls() if s.has_cells and s.repeats is None]
    partial = [s for s in reversed(calls) if evidence.partly_through(s)][:_LOOKED_AT_FOR_ERROR]
    readings = read([call.name for call in partial]) if partial else {}
    maps = [s for s in partial if math.prod(readings[s.name].grid) > 1]
    beside = [
        f"some evidence bypasses {call.name!r} {call.shape}"
        + (f", through {other!r}" if (other := evidence.detour(call)) else "")
        for call in maps[:_NAMED_IN_ERROR]
    ]
    reasons = [*failures[:_NAMED_IN_ERROR], *beside]
    size = " x ".join(map(str, evidence.trace.size))
    none = (
        "no module that camlens can hook returns more than a vector for each image; it cannot hook "
        "modules in a scripted module, in torch.vmap or in a checkpoint without "
        "use_reentrant=False (if a module runs once for each image, name it, explain one image at "
        "a time, and pass layout=camlens.layouts.nchw)"
    )
    example = repr(maps[0].name) if maps else "layer"
    return (
        f"no layer is a map of the images ({size}) through which all evidence for the score "
        f"passes: {'; '.join(reasons) or none}. "
        f"Name the layer to explain, as in camlens.GradCAM(model, {example}); "
        "camlens.find_layers(model, images) lists those that can be explained"
    )


def _growing(calls: Sequence[ModuleCall]) -> Iterator[Sequence[ModuleCall]]:
    """Yield the calls in batches of growing size, as the first batch usually suffices."""
    start, count = 0, _READ_AT_ONCE
    while start < len(calls):
        yield calls[start : start + count]
        start, count = start + count, 4 * count


def on_few_rows(
    attempt: Callable[[Tensor, Any], T], images: Tensor, targets: Any, *, cut: bool
) -> T:
    """Search with the first rows of the images, and with all images if that fails.

    Args:
        attempt: the search, a function of images and targets.
        images: (N, C, *size).
        targets: what to explain, as for the explainers; its rows are selected with the images.
        cut: whether a part of the images may be used: False if the model takes further inputs,
            whose rows only the caller knows.
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
                f"camlens first searched for the default layer with {SEARCH_ROWS} of the {n} "
                f"images, which failed as well ({type(failure).__name__}: {failure}); a layer "
                "given by name needs no search"
            )
            raise


def _first_rows(targets: Any, n: int) -> Any:
    if isinstance(targets, Several):
        return Several(tuple(_first_rows(part, n) for part in targets.parts))
    for_each = isinstance(targets, (Tensor, Sequence)) and not isinstance(targets, str)
    if not for_each or getattr(targets, "ndim", 1) == 0 or len(targets) != n:
        return targets
    return targets[:SEARCH_ROWS]
