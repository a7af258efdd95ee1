"""A run as a task: it explains the given shards of a data set, in any process."""

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

from ..explainers.base import Explainer
from ..explainers.concepts import DeepFeatureFactorization
from ..model import check_mode
from . import manifest
from .batches import Cut, explain_dead_workers, load
from .descriptions import describe_explainer, describe_run
from .fingerprint import Walk
from .options import RunOptions
from .run import Run
from .shards import NAME, clear_parts, present, shard_name
from .work import work_through

#: The default options of a run.
DEFAULTS = RunOptions()


@dataclasses.dataclass(frozen=True, eq=False)
class ShardTask:
    """A run split into shards, each of which can be explained in any process.

    It can be pickled if its model, data set and functions can.

    Args:
        explainer, dataset, out, options: see :func:`camlens.dataset.explain_dataset`.
        resumable: whether the run can resume. If not, the model and the functions may contain
            values that cannot be compared, such as an open file.

    Raises:
        ImportError: a library of ``camlens[data]`` is not installed.
        TypeError, ValueError: an argument has the wrong type or is out of range.
    """

    explainer: Explainer | Sequence[Explainer]
    dataset: Any
    out: str | os.PathLike[str]
    options: RunOptions = DEFAULTS
    resumable: bool = True

    def __post_init__(self) -> None:
        """Check everything that can be checked before the first image."""
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
        """The explainers as a tuple, even if there is only one."""
        explainer = self.explainer
        return (explainer,) if isinstance(explainer, Explainer) else tuple(explainer)

    @property
    def shards(self) -> int:
        """The number of shards of the data set."""
        return self._cut.count(len(self.dataset))

    @property
    def path(self) -> Path:
        """The run's folder."""
        return Path(self.out)

    @property
    def _cut(self) -> Cut:
        return Cut(self.options.shard_size, self.options.batch_size)

    def start(self) -> set[int]:
        """Create the run's folder and manifest, or check that the folder contains this run.

        Returns:
            The numbers of the finished shards.

        Raises:
            OSError: the folder cannot be created or written to.
            ValueError: the folder contains another run or other files.
        """
        check_mode(self.explainers[0].model)
        if not self._is_begun():
            if self.path.exists() and not self.path.is_dir():
                raise NotADirectoryError(
                    f"{self.path} is a file, expected a folder to write a run into"
                )
            self.path.mkdir(parents=True, exist_ok=True)
            foreign = sorted(p.name for p in self.path.iterdir() if not p.name.startswith("."))
            # Another rank may have started the run since the check above.
            if foreign and not self._is_begun():
                raise ValueError(
                    f"{self.path} is not empty ({', '.join(foreign[:3])}) and contains no "
                    "manifest.json: it is not the folder of a run; choose a new or an empty one"
                )
            if not foreign:
                manifest.write(self.path, self._new_manifest)
        clear_parts(self.path)
        return self.done()

    def _is_begun(self) -> bool:
        if not (self.path / "manifest.json").is_file():
            return False
        old = manifest.read(self.path)
        try:
            manifest.check_same(self.path, old, self._new_manifest)
        except ValueError:
            if old["complete"] or any(NAME.fullmatch(path.name) for path in self.path.iterdir()):
                raise
            # An earlier call failed before its first shard, for example with an unknown class.
            manifest.write(self.path, self._new_manifest)
            return True
        if old["notes"] != self._new_manifest["notes"]:
            manifest.write(self.path, {**old, "notes": self._new_manifest["notes"]})
        return True

    def done(self) -> set[int]:
        """Return the numbers of the finished shards."""
        return present(self.path, self.options.tables)

    def run(
        self,
        shards: Sequence[int],
        *,
        progress: Callable[[int], object] | None = None,
        watch: Callable[[Any], object] | None = None,
    ) -> None:
        """Explain some shards and write them.

        Args:
            shards: numbers of the shards, below :attr:`shards`.
            progress: called with the number of images after each batch, on another thread.
            watch: called with the results of each group of images, a
                ``camlens.dataset.image_results.Explained``, on that thread.

        Raises:
            LookupError, TypeError, ValueError: an explainer, score or ablation raises it.
            OSError: a shard cannot be written. Shards written before are kept.
            RuntimeError: a process that reads images died.
        """
        if not shards:
            return
        loaded = load(self.dataset, self._cut, shards, self.options.num_workers)
        with explain_dead_workers(), contextlib.closing(loaded) as batches:
            work_through(
                batches,
                self.explainers,
                self.options,
                self.path,
                identity=manifest.identity(self._new_manifest),
                begun=bool(self.done()),
                progress=progress,
                watch=watch,
            )

    def finish(self) -> Run:
        """Complete the manifest if all shards are finished, in whichever processes.

        Returns:
            The run, which may be incomplete.

        Raises:
            ValueError: a shard is damaged, or belongs to another data set.
        """
        items = len(self.dataset)
        finished, wanted = self.done(), set(range(self.shards))
        if finished - wanted:
            raise ValueError(
                f"{self.path} contains {shard_name(max(finished))}, but a data set of {items} "
                f"items has {len(wanted)} shards: the run is of a longer data set; choose another "
                "folder"
            )
        if finished == wanted:
            clear_parts(self.path)
            completed = manifest.completed(self.path, items)
            if completed != manifest.read(self.path):  # a finished run may be on a read-only disk
                manifest.write(self.path, completed)
        return Run(self.path, incomplete=True)

    @functools.cached_property
    def _new_manifest(self) -> dict[str, Any]:
        """The manifest of a run that is about to start, cached since hashing takes time."""
        return describe_run(self.explainers, self.dataset, self.options, resumable=self.resumable)


def _check_installed() -> None:
    names = ("pandas", "pyarrow", "PIL", "tqdm", "filelock", "xxhash")
    if lacking := [name for name in names if importlib.util.find_spec(name) is None]:
        raise ImportError(
            f'explaining data sets needs {", ".join(lacking)}: pip install "camlens[data]"'
        )


def _check_explainers(one_or_several: Any) -> None:
    single = isinstance(one_or_several, Explainer)
    explainers = [one_or_several] if single else one_or_several
    if not isinstance(explainers, Sequence) or not explainers:
        raise ValueError(
            f"expected an explainer, such as camlens.GradCAM(model), got {one_or_several!r}"
        )
    for explainer in explainers:
        if not isinstance(explainer, Explainer):
            raise TypeError(
                "expected an explainer, such as camlens.GradCAM(model), got "
                f"{type(explainer).__name__}"
            )
        if explainer.model is not explainers[0].model:
            raise ValueError(
                "expected explainers of one model: give each model a run and a folder of its own"
            )
        if isinstance(explainer, DeepFeatureFactorization) and explainer.shared:
            raise ValueError(
                "a run explains images in batches, and with shared=True each batch would have its "
                "own concepts: find the concepts of some images first, and pass them as "
                "directions=explanation.concepts.directions[0]"
            )
    check_mode(explainers[0].model)
    walk = Walk(strict=False)
    described = [describe_explainer(explainer, walk) for explainer in explainers]
    keys = [(facts["method"], facts["layers"]) for facts in described]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise ValueError(f"expected each method and layer once, got {twice[0]} again")


def _check_dataset(dataset: Any) -> None:
    if isinstance(dataset, (str, os.PathLike)):
        raise TypeError(
            f"expected a data set, got the path {os.fspath(dataset)!r}: convert its files to the "
            "model's input with camlens.dataset.Folder(path, transform)"
        )
    streamed = isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__")
    if streamed or not hasattr(dataset, "__len__"):
        raise TypeError(
            "expected a map-style data set, with __getitem__ and __len__, got "
            f"{type(dataset).__name__}: a run reads items by position. Pass list(dataset) if the "
            "items fit into memory, or write them to files for camlens.dataset.Folder"
        )
    if len(dataset) == 0:
        raise ValueError("the data set has no images, so there is nothing to explain")
