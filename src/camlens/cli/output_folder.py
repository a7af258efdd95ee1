"""The folder of results: choose file names, and move all files into it at once."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from hashlib import sha256
from pathlib import Path

from filelock import FileLock, Timeout

from ..files import write_whole

# Most systems limit file names to 255 bytes; this leaves room for suffixes.
_LONGEST = 100

#: Files written once for all photographs; the first lists all files that a call wrote.
RESULTS = "results.json"
SINGLE = (RESULTS, "report.html", "results.csv", "run")
_OF_ALL = (*SINGLE, "regions.csv")

#: The writer of :data:`RESULTS`, recorded in it.
MADE_BY = "camlens explain"

_PREFIX = ".camlens-"


@dataclasses.dataclass
class Names:
    r"""Distinct file names in one folder, derived from photographs' names.

    Characters other than letters, digits, dots, dashes and underscores become underscores, so that
    a name cannot point outside the folder, be hidden or contain terminal control codes.

    Example:
        >>> names = Names()
        >>> [names.of(path) for path in ("a/cat.jpg", "b/cat.png", "b/..", "-- x\n.png")]
        ['cat', 'cat-2', 'photo', 'x']
    """

    taken: set[str] = dataclasses.field(default_factory=set)

    def of(self, photo: str | os.PathLike[str]) -> str:
        """Return a name for a photograph's files."""
        stem = re.sub(r"[^\w.-]", "_", Path(photo).stem).strip("._-")
        stem = stem.encode("utf-8", "ignore")[:_LONGEST].decode("utf-8", "ignore") or "photo"
        name, count = stem, 1
        # Some file systems ignore case.
        while name.casefold() in self.taken:
            count += 1
            name = f"{stem}-{count}"
        self.taken.add(name.casefold())
        return name


def prepare(folder: Path) -> None:
    """Create the folder for the results if it does not exist.

    Raises:
        OSError: the path is a file, or the folder cannot be created or written to.
        ValueError: the folder contains a run.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(
            f"expected {folder} to be a folder for the results, but it or one of its parents is a "
            "file: choose another folder with --out"
        ) from error
    except PermissionError as error:
        raise PermissionError(
            f"no permission to create the folder {folder}: choose another folder with --out"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(
            f"no permission to write into {folder}: choose another folder with --out"
        )
    if (folder / "manifest.json").exists():
        raise ValueError(f"{folder} is the folder of a run: choose another folder with --out")


def check(folder: Path, names: Iterable[str], inputs: Iterable[Path] = ()) -> None:
    """Check that writing some files only replaces results of earlier calls.

    Args:
        folder: the folder of the results.
        names: the files to write.
        inputs: input files of this call.

    Raises:
        FileExistsError: a file to write exists and no earlier call wrote it, or an input is the
            result of an earlier call.
    """
    known = written(folder)
    for name in names:
        if os.path.lexists(folder / name) and name not in known:
            raise FileExistsError(
                f"{folder / name} exists, is not a result of an earlier call and would be "
                "replaced: choose another folder with --out"
            )
    results = {os.path.realpath(folder / name) for name in known}
    for path in inputs:
        if os.path.realpath(path) in results:
            raise FileExistsError(
                f"{path} is a result of an earlier call in {folder}, which this call would "
                "replace: choose another folder with --out"
            )


def written(folder: Path) -> set[str]:
    """Return the names of the files in a folder that ``camlens explain`` recorded as its own."""
    try:
        content = json.loads((folder / RESULTS).read_bytes())
        names = content["written"] if content["made_by"] == MADE_BY else []
        return {name for name in names if Path(name).name == name}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()


@dataclasses.dataclass
class Stage:
    """A hidden folder to write to, and whether to keep its contents."""

    path: Path
    keep: bool = True


@contextlib.contextmanager
def staged(folder: Path, names: Collection[str]) -> Iterator[Stage]:
    """Yield a hidden folder to write to, and move its contents into a folder when the block ends.

    The contents replace an earlier call's page, tables and run, and its files of the same
    photographs; files of other photographs stay. After an exception, or with ``keep`` unset, the
    folder does not change. Hidden folders of killed calls are removed.

    Args:
        folder: the folder of the results.
        names: prefixes of the photographs' files.

    Raises:
        FileExistsError: a file that no earlier call wrote would be replaced.
    """
    _clear_dead(folder)
    stage = Stage(Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder)))
    lock = FileLock(_lock_of(stage.path))
    try:
        with lock:
            yield stage
            if stage.keep:
                with FileLock(_lock_of_all(folder)):
                    _put(stage.path, folder, names)
    finally:
        shutil.rmtree(stage.path, ignore_errors=True)
        _lock_of(stage.path).unlink(missing_ok=True)


def _put(stage: Path, folder: Path, names: Collection[str]) -> None:
    """Replace an earlier call's results with new ones; on an error, undo all moves."""
    new = sorted(path.name for path in stage.iterdir())
    check(folder, new)
    known = {name for name in written(folder) if os.path.lexists(folder / name)}
    replaced = {
        name
        for name in known
        if name in _OF_ALL or name in new or any(name.startswith(f"{each}.") for each in names)
    }
    content = json.loads((stage / RESULTS).read_bytes())
    content["written"] = sorted({*new, *(known - replaced)})
    write_whole(stage / RESULTS, f"{json.dumps(content, indent=2)}\n".encode())
    old = stage / ".old"
    old.mkdir()
    moves = [(folder / name, old / name) for name in replaced]
    moves += [(stage / name, folder / name) for name in new]
    done: list[tuple[Path, Path]] = []
    try:
        for source, goal in moves:
            source.rename(goal)
            done.append((source, goal))
    except BaseException:
        for source, goal in reversed(done):
            goal.rename(source)
        raise


def _clear_dead(folder: Path) -> None:
    for path in folder.glob(f"{_PREFIX}*"):
        if not path.is_dir():
            continue
        lock = FileLock(_lock_of(path))
        try:
            lock.acquire(blocking=False)
        except (Timeout, OSError):
            continue
        shutil.rmtree(path, ignore_errors=True)
        lock.release()
        _lock_of(path).unlink(missing_ok=True)


def _lock_of(stage: Path) -> Path:
    return stage.with_name(f"{stage.name}.lock")


def _lock_of_all(folder: Path) -> Path:
    """Return the lock for replacing a folder's results; kept elsewhere, since lock files remain."""
    name = sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:32]
    return Path(tempfile.gettempdir(), f"camlens-{name}.lock")
