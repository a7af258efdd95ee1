"""The one object that does shards, in any process."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset

from ..concepts import DeepFeatureFactorization
from ..explainers import Explainer
from ..model import check_mode
from . import manifest
from .batches import Cut, dead_workers_told, load
from .descriptions import describe_explainer, describe_run
from .fingerprint import Walk
from .options import RunOptions
from .run import Run
from .shards import NAME, clear_parts, present, shard_name
from .work import work_through

#: The options of a run that says nothing else.
DEFAULTS = RunOptions()


@dataclasses.dataclass(frozen=True, eq=False)
class ShardTask:
    """What is to be done to a data set; does any of its shards, in any process.

    It can be pickled where the model, the data set and the functions it is given can.

    Args:
        explainer, dataset, out, options: as :func:`camlens.dataset.explain_dataset` takes them.
        resumable: whether the run can be continued. If not, the model and the functions may hold
            what cannot be compared, such as an open file.

    Raises:
        ImportError: a library of ``camlens[data]`` is not installed.
        TypeError, ValueError: an argument is of a wrong type or out of range.
    """

    explainer: Explainer | Sequence[Explainer]
    dataset: Any
    out: str | os.PathLike[str]
    options: RunOptions = DEFAULTS
    resumable: bool = True

    def __post_init__(self) -> None:
        """Check everything that can be told before the first image."""
        _check_installed()
        _check_explainers(self.explainer)
        _check_dataset(self.dataset)
        if not isinstance(self.options, RunOptions):
            raise TypeError(
                "expected options as camlens.dataset.RunOptions(...), got "
                f"{type(self.options).__name__}"
            )
        self.options.check_length(len(self.dataset))

    @property
    def explainers(self) -> tuple[Explainer, ...]:
        """The explainers, also of one."""
        one = self.explainer
        return (one,) if isinstance(one, Explainer) else tuple(one)

    @property
    def shards(self) -> int:
        """How many shards the data set has."""
        return self._cut.count(len(self.dataset))

    @property
    def path(self) -> Path:
        """The run's folder."""
        return Path(self.out)

    @property
    def _cut(self) -> Cut:
        return Cut(self.options.shard_size, self.options.batch_size)

    def start(self) -> set[int]:
        """Make the run's folder and its manifest, or check that what is there is this run.

        Returns:
            The numbers of the shards that are there.

        Raises:
            OSError: the folder cannot be made or written to.
            ValueError: it holds something else.
        """
        check_mode(self.explainers[0].model)
        if not self._is_begun():
            if self.path.exists() and not self.path.is_dir():
                raise NotADirectoryError(
                    f"{self.path} is a file, expected a folder to write a run into"
                )
            self.path.mkdir(parents=True, exist_ok=True)
            foreign = sorted(p.name for p in self.path.iterdir() if not p.name.startswith("."))
            # Another rank may have begun the run since the look above.
            if foreign and not self._is_begun():
                raise ValueError(
                    f"{self.path} is not empty ({', '.join(foreign[:3])}) and holds no "
                    "manifest.json: it is not the folder of a run; choose a new or an empty one"
                )
            if not foreign:
                manifest.write(self.path, self._asked)
        clear_parts(self.path)
        return self.done()

    def _is_begun(self) -> bool:
        if not (self.path / "manifest.json").is_file():
            return False
        old = manifest.read(self.path)
        try:
            manifest.check_same(self.path, old, self._asked)
        except ValueError:
            if old["complete"] or any(NAME.fullmatch(path.name) for path in self.path.iterdir()):
                raise
            # A call that failed before its first shard, such as one with a class that is not there.
            manifest.write(self.path, self._asked)
        return True

    def done(self) -> set[int]:
        """Return the numbers of the shards that are there."""
        return present(self.path, self.options.tables)

    def run(
        self,
        shards: Sequence[int],
        *,
        progress: Callable[[int], object] | None = None,
        watch: Callable[[Any], object] | None = None,
    ) -> None:
        """Do some shards.

        Args:
            shards: their numbers, below :attr:`shards`.
            progress: told the number of images after each batch, by another thread.
            watch: given what was found of each group of images, a
                ``camlens.dataset.explained.Explained``, by that thread.

        Raises:
            LookupError, TypeError, ValueError: as the explainers, scores and ablations raise them.
            OSError: a shard cannot be written. Those written before are kept.
            RuntimeError: a process that reads images died.
        """
        if not shards:
            return
        loaded = load(self.dataset, self._cut, shards, self.options.num_workers)
        with dead_workers_told(), contextlib.closing(loaded) as batches:
            work_through(
                batches,
                self.explainers,
                self.options,
                self.path,
                identity=manifest.identity(self._asked),
                begun=bool(self.done()),
                progress=progress,
                watch=watch,
            )

    def finish(self) -> Run:
        """Complete the manifest if all shards are there, whoever did them.

        Returns:
            The run, as far as it is there.

        Raises:
            ValueError: a shard is damaged, or is not of this data set.
        """
        items = len(self.dataset)
        there, wanted = self.done(), set(range(self.shards))
        if there - wanted:
            raise ValueError(
                f"{self.path} holds {shard_name(max(there))}, but a data set of {items} items has "
                f"{len(wanted)} shards: it was made of a longer one; choose another folder"
            )
        if there == wanted:
            clear_parts(self.path)
            completed = manifest.completed(self.path, items)
            if completed != manifest.read(self.path):  # a finished run may be on a read-only disk
                manifest.write(self.path, completed)
        return Run(self.path, incomplete=True)

    @functools.cached_property
    def _asked(self) -> dict[str, Any]:
        """The manifest of a run that is about to start; hashing models and data takes a moment."""
        return describe_run(self.explainers, self.dataset, self.options, resumable=self.resumable)


def _check_installed() -> None:
    names = ("pandas", "pyarrow", "PIL", "tqdm", "filelock", "xxhash")
    if lacking := [name for name in names if importlib.util.find_spec(name) is None]:
        raise ImportError(f'whole data sets need {", ".join(lacking)}: pip install "camlens[data]"')


def _check_explainers(explainer: Any) -> None:
    explainers = [explainer] if isinstance(explainer, Explainer) else explainer
    if not isinstance(explainers, Sequence) or not explainers:
        raise ValueError(
            f"expected an explainer, such as camlens.GradCAM(model), got {explainer!r}"
        )
    for one in explainers:
        if not isinstance(one, Explainer):
            raise TypeError(
                f"expected an explainer, such as camlens.GradCAM(model), got {type(one).__name__}"
            )
        if one.model is not explainers[0].model:
            raise ValueError(
                "expected explainers of one model: give each model a run and a folder of its own"
            )
        if isinstance(one, DeepFeatureFactorization) and one.shared:
            raise ValueError(
                "the images of a run are explained in batches, and concepts with shared=True would "
                "be those of one batch each: find concepts of some images first, and give them as "
                "directions=explanation.concepts.directions[0]"
            )
    check_mode(explainers[0].model)
    walk = Walk(strict=False)
    described = [describe_explainer(one, walk) for one in explainers]
    keys = [(one["method"], one["layers"]) for one in described]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise ValueError(f"expected each method and layer once, got {twice[0]} again")


def _check_dataset(dataset: Any) -> None:
    if isinstance(dataset, (str, os.PathLike)):
        raise TypeError(
            f"expected a data set, got the path {os.fspath(dataset)!r}: say how its files become "
            "the model's input with camlens.dataset.Folder(path, transform)"
        )
    streamed = isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__")
    if streamed or not hasattr(dataset, "__len__"):
        raise TypeError(
            "expected a map-style data set, with __getitem__ and __len__, got "
            f"{type(dataset).__name__}: a run is continued at an item's position, which a stream "
            "does not have. Give list(dataset) where the items fit into memory; else write them "
            "to files for camlens.dataset.Folder, or read item i in a __getitem__ of your own"
        )
    if len(dataset) == 0:
        raise ValueError("the data set has no images: there is nothing to explain")
