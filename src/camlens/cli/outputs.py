"""The files of an explained photograph: their names and how they are written."""

from __future__ import annotations

import dataclasses
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .. import contours, overlay
from ..explanation import Explanation
from ..files import write_whole

#: A file's name has at most 255 bytes on most systems; this leaves room for what is added.
_LONGEST = 100


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


def paths(folder: Path, name: str, targets: Sequence[int], *, regions: bool) -> dict[str, Path]:
    """Return the files of one photograph, by what they are.

    Args:
        folder: where.
        name: what the files' names begin with.
        targets: K explained classes. Of several there is a picture for each, which the class's
            number tells apart.
        regions: whether there is a table of regions.

    Example:
        >>> list(paths(Path("out"), "cat", [3], regions=True))
        ['overlay', 'contours', 'explanation', 'regions']
    """
    files = {}
    for kind in ("overlay", "contours"):
        for target in targets:
            part = _part(kind, target, len(targets))
            files[part] = folder / f"{name}.{part}.png"
    files["explanation"] = folder / f"{name}.safetensors"
    if regions:
        files["regions"] = folder / f"{name}.regions.csv"
    return files


def refuse_to_replace(photos: Iterable[Path], files: Iterable[Path]) -> None:
    """Check that no photograph is where a result would be written.

    Args:
        photos: given in this call; those that are not there count for nothing.
        files: to be written.

    Raises:
        FileExistsError: one is.
    """
    given = {facts for photo in photos if (facts := _identity(photo))}
    for file in files:
        if _identity(file) in given:
            raise FileExistsError(
                f"its results would replace {file}, which is one of the photographs given: name "
                "another folder with --out"
            )


def write(files: Mapping[str, Path], picture: Tensor, explanation: Explanation) -> None:
    """Write the pictures and the explanation of one photograph, each file whole.

    Args:
        files: as :func:`paths` gives them.
        picture: (3, H, W) uint8, what the model saw.
        explanation: of this one image.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    heat = explanation.heatmaps.cpu()
    drawn = {
        "overlay": overlay(picture[None], heat)[0],
        "contours": contours(picture[None].expand(1, 3, -1, -1), heat)[0],
    }
    targets = explanation.targets[0].tolist()
    for kind, pictures in drawn.items():
        for target, one in zip(targets, pictures, strict=True):
            write_whole(files[_part(kind, target, len(targets))], png(one))
    explanation.save(files["explanation"])


def png(picture: Tensor) -> bytes:
    """Encode a (3, H, W) uint8 picture."""
    from PIL import Image

    stream = io.BytesIO()
    pixels = picture.to(torch.uint8).permute(1, 2, 0).contiguous()
    Image.fromarray(pixels.numpy()).save(stream, "PNG")
    return stream.getvalue()


def _part(kind: str, target: int, count: int) -> str:
    return kind if count == 1 else f"{kind}-{target}"


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from all others, whatever it is called; None if it is not there."""
    try:
        facts = path.stat()
    except (OSError, ValueError):
        return None
    return facts.st_dev, facts.st_ino
