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
from ..faithfulness.evaluation.measurements import Question
from ..faithfulness.evaluation.named_metrics import Metrics, named_metrics, needs_place
from ..regions.masks import Regions
from ..targets import PerImage, Several, Targets, as_data_set_targets, check_activation

#: Regions of all images, from pictures (N, 1 or 3, H, W) in [0, 1] to the regions of each, or the
#: samples' own.
RegionsOf = Regions | Callable[[Tensor], Regions] | Literal["own"]

#: How heat is kept: the type's name in the manifest, and how numpy reads it.
HEAT_TYPES: dict[str, np.dtype[Any]] = {"uint8": np.dtype(np.uint8), "float16": np.dtype("<f2")}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RunOptions:
    """The options of a run, checked when they are made.

    All but ``num_workers`` decide what is written: a run is continued with equal ones only.

    Args:
        targets: what to explain. None: the predicted class. ``"label"``: each image's own class.
            ``"all"``, a class, ``top(k)``, ``several(...)``, a callable: as an explainer takes
            them. (M,) or (M, K) classes, and a target's masks or boxes of each image: row i of
            item i.
        regions: for all images, resized to theirs; or a function from pictures
            (N, 1 or 3, H, W), floating point in [0, 1], to the regions of each, such as a face
            detector's; or ``"own"``: those that each :class:`Sample` brings.
        infill: also measure how far the scores fall without each region, see
            :func:`camlens.faithfulness.ablate_regions` (1 + 5 R forward passes per image with R
            regions); its ``seed`` is the index of the first image of the batch.
        activation: turns the model's outputs into the probabilities of the tables, see
            :func:`camlens.targets.probabilities`: ``"softmax"``, ``"sigmoid"`` (multi-label) or
            ``"none"`` (outputs are probabilities).
        classes: the classes' names, by id, for the table of regions.
        picture: from images (N, C, H, W) as the model takes them to what is shown of them,
            (N, 1 or 3, H, W) in [0, 1] or uint8: it undoes the normalisation. A sample's own
            picture comes first. Without both, images in [0, 1] are shown as they are, others
            stretched from their minimum to their maximum. It is given images in main memory.
        batch_size: images an explainer takes at once; also what ``infill`` runs at once.
        shard_size: images a shard. What is lost when the call is killed is at most the shards
            that are being made.
        heatmaps: how heat is kept: ``"uint8"``, 256 steps of each map's maximum, or
            ``"float16"``.
        num_workers: processes that read images; 0 reads them on the calling thread.
        metrics: also judge the maps by metrics of faithfulness, as
            :func:`camlens.faithfulness.evaluate` takes them. Metrics of localization are given the
            ``regions``: one, or one for each target.
        floors: of the metrics, see :class:`camlens.faithfulness.MetricOptions`.
        seed: of the metrics, likewise.

    Raises:
        TypeError: an option is of a wrong type.
        ValueError: an option is out of range, or needs another one.
    """

    targets: Targets = None
    regions: RegionsOf | None = None
    infill: str | None = None
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

    def __post_init__(self) -> None:
        """Check the values, and make a tensor of the classes of each image."""
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
        if self.classes is not None:
            if isinstance(self.classes, str) or not isinstance(self.classes, Sequence):
                raise TypeError(
                    f"expected classes as a list of names, got {type(self.classes).__name__}"
                )
            object.__setattr__(self, "classes", tuple(map(str, self.classes)))
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
    def question(self) -> Question:
        """What is measured of each image."""
        return Question(
            metrics=named_metrics(self.metrics) if self.metrics else {},
            floors=tuple(self.floors),
            activation=self.activation,
            seed=self.seed,
            batch_size=self.batch_size,
        )

    def recorded(self) -> dict[str, Any]:
        """Return the options that decide what is written, by name."""
        fields = dataclasses.fields(self)
        known = {f.name: getattr(self, f.name) for f in fields if f.metadata.get("recorded", True)}
        if not self.metrics:
            return {name: value for name, value in known.items() if name not in _OF_METRICS}
        return {**known, "metrics": list(known["metrics"].items())}

    def check_length(self, items: int) -> None:
        """Check that targets of each image are as many as the images.

        Raises:
            ValueError: they are not.
        """
        parts = self.targets.parts if isinstance(self.targets, Several) else (self.targets,)
        for part in parts:
            if isinstance(part, Tensor) and len(part) not in (1, items):
                raise ValueError(
                    f"expected targets as one class, ({items},) or ({items}, K): a row for each "
                    f"item of the data set, got {tuple(part.shape)}"
                )
            if isinstance(part, PerImage) and part.count not in (None, items):
                raise ValueError(
                    f"expected targets={type(part).__name__.lower()}(...) for all images alike or "
                    f"for each of the {items} items of the data set, got {part.count} rows"
                )


#: The numbers among the options, and their least values.
_NUMBERS = (("batch_size", 1), ("shard_size", 1), ("num_workers", 0), ("seed", 0))

#: Options that say nothing where there are no metrics.
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
                f"{name} asks where the objects are: give regions= too, of one region or one for "
                "each target"
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
            "each image give a function of the pictures"
        )
    if infill is not None and infill not in INFILLS:
        raise ValueError(f"expected an infill out of {INFILLS}, got {infill!r}")
    if infill is not None and regions is None:
        raise ValueError("infill= removes regions, but there are none: give regions= too")
