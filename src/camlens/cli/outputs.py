"""The folder of a call's results: names of files, and all of them put there at once."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

# Names may have 255 bytes on most systems; this leaves room for what is added.
_LONGEST = 100

#: What is written once for all photographs.
_SINGLE = ("report.html", "results.json", "results.csv", "regions.csv")


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
        ValueError: it is the folder of a run, or holds a folder ``run`` that is none.
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
    run = folder / "run"
    if run.exists() and not (run / "manifest.json").is_file():
        raise ValueError(
            f"{run} is there and is no run of an earlier call, which would be replaced: name "
            "another folder with --out"
        )


def refuse_to_replace(folder: Path, photos: Sequence[Path], names: Sequence[str]) -> None:
    """Check that no photograph lies where a result would be written.

    Args:
        folder: of the results.
        photos: given in this call.
        names: of the photographs' results.

    Raises:
        FileExistsError: one does.
    """
    place = folder.resolve()
    result = re.compile(
        rf"({'|'.join(map(re.escape, names))})\.(.*(overlay|contours|signed|sheet).*\.png"
        r"|.*safetensors)"
    )
    for photo in photos:
        inside = photo.exists() and photo.resolve().parent == place
        if inside and (result.fullmatch(photo.name) or photo.name in _SINGLE):
            raise FileExistsError(
                f"the results could replace {photo}, which is one of the photographs given: name "
                "another folder with --out"
            )


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Give a hidden folder to write to; at the end of the block all in it is moved into the folder.

    What bears the same name there is replaced. After an exception nothing is moved, and the hidden
    folder is removed.
    """
    stage = Path(tempfile.mkdtemp(prefix=".camlens-", dir=folder))
    try:
        yield stage
        for new in sorted(stage.iterdir()):
            place = folder / new.name
            if new.is_dir() and place.is_dir():
                place.rename(stage / f"{new.name}.old")
            new.replace(place)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
