"""The options of a run: what to explain in each image, and in which batches and shards."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from torch import Tensor

from ..faithfulness import FLOORS, INFILLS
from ..faithfulness.evaluation.evaluate import checked_floors
from ..faithfulness.evaluation.measurements import MetricPlan
from ..faithfulness.evaluation.named_metrics import Metrics, named_metrics, needs_place
from ..regions.masks import Regions
from ..targets import PerImage, Several, Targets, as_data_set_targets, check_activation

#: Where a run's regions come from: one set for all images, a function of pictures
#: (N, 1 or 3, H, W) in [0, 1], or ``"own"`` for each sample's regions.
RegionsOf = Regions | Callable[[Tensor], Regions] | Literal["own"]

#: Types of stored heatmaps: the name in the manifest, and numpy's type.
HEAT_TYPES: dict[str, np.dtype[Any]] = {"uint8": np.dtype(np.uint8), "float16": np.dtype("<f2")}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RunOptions:
    """The options of a run, validated on creation.

    All options except ``num_workers`` and ``notes`` affect the results, so a run only resumes with
    equal ones.

    Args:
        targets: what to explain. None: the predicted class. ``"label"``: each image's label.
            ``"all"``, a class, ``top(k)``, ``several(...)``, a callable: as explainers accept
            them. (M,) or (M, K) classes, and a target's masks or boxes for each image: row i
            belongs to item i.
        regions: one set for all images, resized to them; or a function from pictures
            (N, 1 or 3, H, W), floating point in [0, 1], to the regions of each, such as a face
            detector's; or ``"own"``: the regions of each :class:`Sample`.
        infill: also measure how far the scores fall without each region, see
            :func:`camlens.faithfulness.ablate_regions`; its ``seed`` is the index of the first
            image of the batch.
        placements: number of random positions that ``infill`` compares each region with: 1 + R (1 +
            placements) forward passes per image with R regions. Few are enough for means over many
            images; to judge single images, take 16 or more.
        activation: converts the model's outputs to the probabilities in the tables, see
            :func:`camlens.targets.probabilities`: ``"softmax"``, ``"sigmoid"`` (multi-label) or
            ``"none"`` (outputs are probabilities).
        classes: class names by id, for the table of regions.
        picture: converts images (N, C, H, W) as the model takes them to pictures for display,
            (N, 1 or 3, H, W) in [0, 1] or uint8: it undoes the normalisation. A sample's own
            picture takes precedence. Without either, images in [0, 1] are shown as they are, others
            are stretched from their minimum to their maximum. It receives images on the CPU.
        batch_size: number of images that an explainer takes at once; also for ``infill``.
        shard_size: number of images in a shard. If the call is killed, only the shards in progress
            are lost.
        heatmaps: data type of stored maps: ``"uint8"``, 256 levels up to each map's maximum, or
            ``"float16"``.
        num_workers: processes that read images; 0 reads them on the calling thread.
        metrics: also compute faithfulness metrics of the maps, see
            :func:`camlens.faithfulness.evaluate`. Localization metrics need ``regions``: one region
            for all targets, or one for each.
        floors: floors of the metrics, see :class:`camlens.faithfulness.MetricOptions`.
        seed: seed of the metrics, see :class:`camlens.faithfulness.MetricOptions`.
        notes: what a reader of the report must know, such as "the weights are random"; the page
            shows those of the last call under its title.

    Raises:
        TypeError: an option has the wrong type.
        ValueError: an option is out of range, or requires another one.
    """

    targets: Targets = None
    regions: RegionsOf | None = None
    infill: str | None = None
    placements: int = 4
    activation: str = "softmax"
    classes: Sequence[str] | None = None
    picture: Callable[[Tensor], Tensor] | None = None
    batch_size: int = 32
    shard_size: int = 256
    heatmaps: str = "uint8"
    num_workers: int = dataclasses.field(default=0, metadata={"recorded": False})
    metrics: Metrics = ()
    floors: Sequence[str] = tuple(FLOORS)
    seed: int = 0
    notes: Sequence[str] = dataclasses.field(default=(), metadata={"recorded": False})

    def __post_init__(self) -> None:
        """Check the values, and convert classes of each image to a tensor."""
        _check_regions(self.regions, self.infill)
        check_activation(self.activation)
        for name, least in _NUMBERS:
            value = getattr(self, name)
            whole = hasattr(value, "__index__") and not isinstance(value, bool)
            if not whole or operator.index(value) < least:
                raise ValueError(
                    f"expected {name} as a whole number of at least {least}, got {value!r}"
                )
            object.__setattr__(self, name, operator.index(value))
        for name, of in (("classes", "names"), ("notes", "sentences")):
            value = getattr(self, name)
            if value is not None:
                if isinstance(value, str) or not isinstance(value, Sequence):
                    raise TypeError(
                        f"expected {name} as a list of {of}, got {type(value).__name__}"
                    )
                object.__setattr__(self, name, tuple(map(str, value)))
        if self.heatmaps not in HEAT_TYPES:
            raise ValueError(f"expected heatmaps as one of {[*HEAT_TYPES]}, got {self.heatmaps!r}")
        object.__setattr__(self, "targets", as_data_set_targets(self.targets))
        object.__setattr__(self, "floors", checked_floors(self.floors))
        object.__setattr__(self, "metrics", _named_metrics(self.metrics, self.regions))

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of a shard's tables."""
        return tables_of(regions=self.regions is not None, metrics=bool(self.metrics))

    @property
    def metric_plan(self) -> MetricPlan:
        """The metrics to compute for each image, and their options."""
        return MetricPlan(
            metrics=named_metrics(self.metrics) if self.metrics else {},
            floors=tuple(self.floors),
            activation=self.activation,
            seed=self.seed,
            batch_size=self.batch_size,
        )

    def recorded(self) -> dict[str, Any]:
        """Return the options that affect the results, by name."""
        fields = dataclasses.fields(self)
        known = {f.name: getattr(self, f.name) for f in fields if f.metadata.get("recorded", True)}
        if self.infill is None:
            del known["placements"]
        if not self.metrics:
            return {name: value for name, value in known.items() if name not in _OF_METRICS}
        return {**known, "metrics": list(known["metrics"].items())}

    def check_length(self, items: int) -> None:
        """Check that per-image targets have one row for each item.

        Raises:
            ValueError: the number of rows is wrong.
        """
        parts = self.targets.parts if isinstance(self.targets, Several) else (self.targets,)
        for part in parts:
            if isinstance(part, Tensor) and len(part) not in (1, items):
                raise ValueError(
                    f"expected targets as one class, ({items},) or ({items}, K): a row for each "
                    f"item of the data set, got shape {tuple(part.shape)}"
                )
            if isinstance(part, PerImage) and part.count not in (None, items):
                raise ValueError(
                    f"expected targets={type(part).__name__.lower()}(...) with one row for all "
                    f"images or one for each of the {items} items of the data set, got "
                    f"{part.count} rows"
                )


#: Integer options and their smallest values.
_NUMBERS = (
    *(("placements", 1), ("batch_size", 1), ("shard_size", 1)),
    *(("num_workers", 0), ("seed", 0)),
)

#: Options that have no effect without metrics.
_OF_METRICS = ("metrics", "floors", "seed")


def tables_of(*, regions: bool, metrics: bool) -> tuple[str, ...]:
    """Return the names of a shard's tables.

    Example:
        >>> tables_of(regions=False, metrics=True)
        ('images', 'maps', 'values')
    """
    return ("images", "maps", *["regions"] * regions, *["values"] * metrics)


def _named_metrics(metrics: Metrics, regions: Any) -> Mapping[str, Any]:
    if not metrics:
        return {}
    found = named_metrics(metrics)
    for name, metric in found.items():
        if regions is None and needs_place(metric):
            raise ValueError(
                f"{name} needs the locations of the objects: pass regions= too, with one region or "
                "one for each target"
            )
    return found


def _check_regions(regions: Any, infill: str | None) -> None:
    known = regions is None or regions == "own" or isinstance(regions, Regions)
    if not known and not callable(regions):
        raise TypeError(
            "expected regions as camlens.regions.Regions, as a function of pictures or as "
            f'"own", got {regions!r:.60}'
        )
    if isinstance(regions, Regions) and len(regions.masks) != 1:
        raise ValueError(
            f"expected one set of masks for all images, got {len(regions.masks)}: for masks of "
            "each image pass a function of the pictures"
        )
    if infill is not None and infill not in INFILLS:
        raise ValueError(f"expected infill to be one of {INFILLS}, got {infill!r}")
    if infill is not None and regions is None:
        raise ValueError("infill= removes regions, but there are none: pass regions= too")
