"""The one object that does shards, on one machine or on many."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import IterableDataset

from ..explainers import Explainer
from ..model import check_mode
from ..targets import Targets, check_activation
from . import arguments, manifests
from .facts import completed, first_manifest
from .loading import Batch, Cut, End, dead_workers_told, load_mapped, load_streamed
from .pipeline import work_through
from .questions import Questions, RegionsOf
from .runs import Run
from .shards import NAME, clear_parts, present, shard_name


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ShardTask:
    """What is to be done to a data set; does any of its shards, in any process.

    It can be pickled where the model, the data set and the functions it is given can. The
    attributes are the arguments of :func:`camlens.dataset.explain_dataset`, which describes them.

    Raises:
        ImportError: a library of ``camlens[data]`` is not installed.
        TypeError, ValueError: an argument is of a wrong type or out of range.
    """

    explainer: Explainer | Sequence[Explainer]
    dataset: Any
    out: str | os.PathLike[str]
    regions: RegionsOf | None = None
    targets: Targets = None
    infill: str | None = None
    activation: str = "softmax"
    classes: Sequence[str] | None = None
    picture: Callable[[Tensor], Tensor] | None = None
    batch_size: int = 32
    num_workers: int = 0
    concurrent_batches: int = 1
    shard_size: int = 256
    heatmaps: str = "uint8"

    def __post_init__(self) -> None:
        """Check everything that can be told before the first image."""
        arguments.check_installed()
        arguments.check_explainers(self.explainers)
        arguments.check_dataset(self.dataset)
        arguments.check_regions(self.regions, self.infill)
        check_activation(self.activation)
        arguments.check_numbers(
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            concurrent_batches=self.concurrent_batches,
            shard_size=self.shard_size,
        )
        arguments.check_heatmaps(self.heatmaps)
        length = len(self.dataset) if self.mapped else None
        object.__setattr__(self, "targets", arguments.as_targets(self.targets, length))

    @property
    def explainers(self) -> tuple[Explainer, ...]:
        """The explainers, also of one."""
        one = self.explainer
        return (one,) if isinstance(one, Explainer) else tuple(one)

    @property
    def mapped(self) -> bool:
        """Whether any item of the data set can be asked for."""
        streamed = isinstance(self.dataset, IterableDataset)
        return not streamed and hasattr(self.dataset, "__getitem__")

    @property
    def shards(self) -> int:
        """How many shards the data set has.

        Raises:
            ValueError: it is iterable, and so only its end tells.
        """
        if not self.mapped:
            raise ValueError(
                "how many shards an iterable data set has is known at its end only: give a "
                "map-style one, with __getitem__ and __len__, or use explain_dataset"
            )
        return self._cut.count(len(self.dataset))

    @property
    def path(self) -> Path:
        """The run's folder."""
        return Path(self.out)

    @property
    def _cut(self) -> Cut:
        return Cut(self.shard_size, self.batch_size)

    def start(self) -> dict[str, Any]:
        """Make the run's folder and its manifest, or check that what is there is this run.

        Returns:
            The manifest that is there.

        Raises:
            OSError: the folder cannot be made or written to.
            ValueError: it holds something else, or the data set is empty.
        """
        check_mode(self.explainers[0].model)
        if self.mapped and len(self.dataset) == 0:
            raise ValueError("the data set has no images: there is nothing to explain")
        asked = self._asked
        if (old := self._begun(asked)) is not None:
            return old
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(
                f"{self.path} is a file, expected a folder to write a run into"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        if foreign := sorted(p.name for p in self.path.iterdir() if not p.name.startswith(".")):
            if (old := self._begun(asked)) is not None:  # by another rank, since the look above
                return old
            raise ValueError(
                f"{self.path} is not empty ({', '.join(foreign[:3])}) and holds no manifest.json: "
                "it is not the folder of a run; choose a new or an empty one"
            )
        manifests.write(self.path, asked)
        return asked

    def _begun(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        if not (self.path / "manifest.json").is_file():
            return None
        old = manifests.read(self.path)
        try:
            manifests.check_same(self.path, old, asked)
        except ValueError:
            if old["complete"] or any(NAME.fullmatch(path.name) for path in self.path.iterdir()):
                raise
            # A call that failed before its first shard, such as one with a class that is not there.
            manifests.write(self.path, asked)
            return asked
        return old

    def done(self) -> set[int]:
        """Return the numbers of the shards that are there."""
        return present(self.path, regions=self.regions is not None)

    def run(
        self, shards: Sequence[int], *, progress: Callable[[int], object] | None = None
    ) -> None:
        """Do some shards of a map-style data set.

        Args:
            shards: their numbers, below :attr:`shards`.
            progress: told the number of images after each batch, by another thread.

        Raises:
            LookupError, TypeError, ValueError: as the explainers, scores and ablations raise them.
            OSError: a shard cannot be written. Those written before are kept.
            RuntimeError: a process that reads images died.
        """
        if not shards:
            return
        with (
            dead_workers_told(),
            contextlib.closing(
                load_mapped(self.dataset, self._cut, shards, self.num_workers)
            ) as batches,
        ):
            self._work_through(batches, progress)

    def run_stream(
        self, passed_over: Container[int], *, progress: Callable[[int], object] | None = None
    ) -> int:
        """Read an iterable data set to its end, and do its shards but those passed over.

        Returns:
            How many items it has.

        Raises:
            LookupError, OSError, RuntimeError, TypeError, ValueError: as :meth:`run`.
        """
        with (
            dead_workers_told(),
            contextlib.closing(
                load_streamed(self.dataset, self._cut, passed_over, self.num_workers)
            ) as batches,
        ):
            end = self._work_through(batches, progress)
        return 0 if end is None else end.items

    def finish(self, items: int | None = None) -> Run:
        """Complete the manifest if all shards are there, whoever did them.

        Args:
            items: how many an iterable data set has; of a map-style one its length.

        Returns:
            The run, as far as it is there.

        Raises:
            ValueError: a shard is damaged, or is not of this data set.
        """
        items = len(self.dataset) if items is None else items
        if items == 0:
            raise ValueError("the data set has no images: there is nothing to explain")
        there, wanted = self.done(), set(range(self._cut.count(items)))
        if there - wanted:
            raise ValueError(
                f"{self.path} holds {shard_name(max(there))}, but a data set of {items} items has "
                f"{len(wanted)} shards: it was made of a longer one; choose another folder"
            )
        if there == wanted:
            clear_parts(self.path)
            manifest = completed(self.path, items)
            if manifest != manifests.read(self.path):  # a finished run may be on a read-only disk
                manifests.write(self.path, manifest)
        return Run(self.path, incomplete=True)

    @functools.cached_property
    def _asked(self) -> dict[str, Any]:
        """The manifest of a run that is about to start; hashing models and data takes a moment."""
        return first_manifest(self._questions, self.dataset, self.shard_size)

    @property
    def _questions(self) -> Questions:
        return Questions(
            explainers=self.explainers,
            targets=self.targets,
            regions=self.regions,
            infill=self.infill,
            activation=self.activation,
            classes=self.classes,
            picture=self.picture,
            heatmaps=self.heatmaps,
            batch_size=self.batch_size,
        )

    def _work_through(
        self, batches: Iterable[Batch | End], progress: Callable[[int], object] | None
    ) -> End | None:
        return work_through(
            batches,
            self._questions,
            self.path,
            identity=manifests.identity(self._asked),
            begun=bool(self.done()),
            concurrent_batches=self.concurrent_batches,
            progress=progress,
        )
