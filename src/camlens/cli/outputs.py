"""The files of an explained photograph: their names and how they are written."""

from __future__ import annotations

import dataclasses
import io
import os
import re
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


def write(folder: Path, name: str, picture: Tensor, explanation: Explanation) -> dict[str, Path]:
    """Write the pictures and the explanation of one photograph, each file whole.

    Args:
        folder: where.
        name: what the files' names begin with.
        picture: (3, H, W) uint8, what the model saw.
        explanation: of this one image.

    Returns:
        The files, by what they are. Of several targets there is a picture for each, which the
        class's number tells apart.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    heat = explanation.heatmaps.cpu()
    drawn = {
        "overlay": overlay(picture[None], heat)[0],
        "contours": contours(picture[None].expand(1, 3, -1, -1), heat)[0],
    }
    files = {}
    classes = explanation.targets[0].tolist()
    for kind, pictures in drawn.items():
        for target, one in zip(classes, pictures, strict=True):
            part = kind if len(classes) == 1 else f"{kind}-{target}"
            files[part] = folder / f"{name}.{part}.png"
            write_whole(files[part], png(one))
    files["explanation"] = folder / f"{name}.safetensors"
    explanation.save(files["explanation"])
    return files


def png(picture: Tensor) -> bytes:
    """Encode a (3, H, W) uint8 picture."""
    from PIL import Image

    stream = io.BytesIO()
    pixels = picture.to(torch.uint8).permute(1, 2, 0).contiguous()
    Image.fromarray(pixels.numpy()).save(stream, "PNG")
    return stream.getvalue()
