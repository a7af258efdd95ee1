"""The folder of a call's results: names of files, and all of them put there at once."""

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

# Names may have 255 bytes on most systems; this leaves room for what is added.
_LONGEST = 100

#: What is written once for all photographs; the first says what else was.
RESULTS = "results.json"
SINGLE = (RESULTS, "report.html", "results.csv", "run")
_OF_ALL = (*SINGLE, "regions.csv")

#: Who wrote :data:`RESULTS`.
MADE_BY = "camlens explain"

_PREFIX = ".camlens-"


@dataclasses.dataclass
class Names:
    r"""Names for files in one folder, each once, made of photographs' names.

    What is neither letter, digit, dot, dash nor underscore becomes an underscore, so that no name
    leads out of the folder, is hidden or steers a terminal.

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
        # Some systems take upper and lower case for the same.
        while name.casefold() in self.taken:
            count += 1
            name = f"{stem}-{count}"
        self.taken.add(name.casefold())
        return name


def prepare(folder: Path) -> None:
    """Make a folder for what is written, if it is not there.

    Raises:
        OSError: it is a file, or cannot be made or written to.
        ValueError: it is the folder of a run.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(
            f"expected {folder} as a folder for the results, but it or a part of it is a file: "
            "name another with --out"
        ) from error
    except PermissionError as error:
        raise PermissionError(
            f"may not make the folder {folder}: name another with --out"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"may not write into {folder}: name another folder with --out")
    if (folder / "manifest.json").exists():
        raise ValueError(f"{folder} is the folder of a run: name another with --out")


def check(folder: Path, names: Iterable[str], inputs: Iterable[Path] = ()) -> None:
    """Check that writing some files destroys nothing: only an earlier call's are replaced.

    Args:
        folder: of the results.
        names: of what is to be written there.
        inputs: files of this call.

    Raises:
        FileExistsError: a file of such a name is there that no earlier call wrote, or an input is
            one that an earlier call wrote.
    """
    known = written(folder)
    for name in names:
        if os.path.lexists(folder / name) and name not in known:
            raise FileExistsError(
                f"{folder / name} is there and is no result of an earlier call, and would be "
                "replaced: name another folder with --out"
            )
    results = {os.path.realpath(folder / name) for name in known}
    for path in inputs:
        if os.path.realpath(path) in results:
            raise FileExistsError(
                f"{path} is a result of an earlier call in {folder}, which this call would "
                "replace: name another folder with --out"
            )


def written(folder: Path) -> set[str]:
    """Return the names of what the last call of ``camlens explain`` wrote into a folder."""
    try:
        content = json.loads((folder / RESULTS).read_bytes())
        names = content["written"] if content["made_by"] == MADE_BY else []
        return {name for name in names if Path(name).name == name}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()


@dataclasses.dataclass
class Stage:
    """A hidden folder to write to, and whether what is in it is to be kept."""

    path: Path
    keep: bool = True


@contextlib.contextmanager
def staged(folder: Path, names: Collection[str]) -> Iterator[Stage]:
    """Give a hidden folder to write to; at the end of the block all in it is moved into a folder.

    There it replaces an earlier call's page, tables and run, and its files of the same photographs;
    those of other photographs stay. After an exception, or where it is not to be kept, nothing in
    the folder changes. Hidden folders of calls that were killed are removed.

    Args:
        folder: of the results.
        names: what the names of the photographs' files begin with.

    Raises:
        FileExistsError: a file would be replaced that no earlier call wrote.
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
    """Move an earlier call's results away and new ones into their place; all, or none of it."""
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
    """Return the lock under which a folder's results are replaced; not in it, for it stays."""
    name = sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:32]
    return Path(tempfile.gettempdir(), f"camlens-{name}.lock")
