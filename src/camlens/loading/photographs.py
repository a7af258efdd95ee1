"""Read image files of any common format, and list those in a folder.

Files are untrusted: the size is checked before the pixels are decoded, and only the decoders of
:data:`FORMATS` are tried.
"""

from __future__ import annotations

import errno
import importlib
import os
import stat
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["FORMATS", "MAX_PIXELS", "SUFFIXES", "find_photographs", "read_photograph"]

#: Larger images are rejected before they are decoded; 100 megapixels take 300 MB.
MAX_PIXELS = 100_000_000

#: The decoders to try, by Pillow's names. Some of the others run programs (EPS).
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

#: Suffixes of image files, in lower case, for :func:`find_photographs`.
SUFFIXES = frozenset(
    {
        *(".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
        *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
    }
)


def read_photograph(path: str | os.PathLike[str]) -> Tensor:
    """Read an image file as upright RGB pixels, as an image viewer shows it.

    The EXIF orientation is applied; an unreadable orientation is ignored. Grey, palette and CMYK
    pictures (the latter without their colour profile) become RGB. 16-bit values are scaled, not
    clipped, and inverted if the file stores white as zero. Transparent pictures are composed over
    white. Only the first image of an animation or of a file with several pages is read.

    Args:
        path: the file.

    Returns:
        (3, H, W) uint8 RGB.

    Raises:
        ImportError: Pillow is not installed.
        OSError: the file does not exist, is not readable, or is a folder or a device; or the
            system failed to read it (a disk error, too many open files), with its ``errno``.
        MemoryError: there is not enough memory to decode it.
        ValueError: the file is empty, damaged, truncated, larger than :data:`MAX_PIXELS`, not in a
            known format, or has pixels without a known range (signed values, 32-bit integers and
            floats).

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
        ...     Image.new("RGBA", (2, 1), (255, 0, 0, 51)).save(file.name)
        ...     read_photograph(file.name)[:, 0, 0].tolist()  # a fifth red, the rest white
        [255, 204, 204]
    """
    path = Path(path)
    _check_file(path)
    pillow = _pillow()
    try:
        # Pillow warns about unreadable tags, and about sizes, which are checked below.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with path.open("rb") as file, pillow.open(file, formats=FORMATS) as image:
                _check_size(path, *image.size)
                image.load()
                _turn_upright(image)
                pixels = np.asarray(_rgb(image, path))
    except pillow.UnidentifiedImageError as error:
        raise ValueError(
            f"{path} is not an image of a known format ({', '.join(FORMATS)}), has a pixel "
            "format that Pillow cannot read, or is damaged at its beginning: leave it out, or "
            "save it again as JPEG or PNG"
        ) from error
    except pillow.DecompressionBombError as error:
        raise ValueError(f"{path} is rejected: {error} Make it smaller first") from error
    except (UnsupportedImageError, MemoryError):
        raise
    # Decoders raise almost anything on damaged files: struct.error, SyntaxError, IndexError, ...
    except Exception as error:
        if _is_system_error(error):
            raise
        raise ValueError(
            f"{path} is damaged or truncated ({error or type(error).__name__}): get a complete "
            "copy, or leave it out"
        ) from error
    return torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))


def find_photographs(root: str | os.PathLike[str]) -> list[Path]:
    """List the image files in a folder and its subfolders, in a fixed order.

    Image files are recognised by their suffix (:data:`SUFFIXES`). The list leaves out hidden files
    and folders (names that begin with a dot), links to folders, links to files outside the folder,
    pipes and devices.

    Args:
        root: the folder.

    Returns:
        Paths that begin with ``root``, sorted by their parts; an empty list if there are no images.

    Raises:
        OSError: the folder does not exist, or it or a subfolder is not readable.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("b.PNG", "a.jpg", ".hidden.jpg", "notes.txt"):
        ...         _ = Path(folder, name).write_bytes(b"")
        ...     [path.name for path in find_photographs(folder)]
        ['a.jpg', 'b.PNG']
    """
    root = Path(root)
    if not root.is_dir():
        kind = "is not a folder" if root.exists() else "does not exist"
        raise NotADirectoryError(f"expected a folder with images, but {root} {kind}")
    inside = root.resolve()
    paths = []
    for folder, below, names in os.walk(root, onerror=_raise):
        below[:] = [name for name in below if not name.startswith(".")]
        for name in names:
            path = Path(folder, name)
            if name.startswith(".") or path.suffix.lower() not in SUFFIXES:
                continue
            if path.is_file() and path.resolve().is_relative_to(inside):
                paths.append(path)
    return sorted(paths, key=lambda path: path.relative_to(root).parts)


# TIFF tags, and their values for an inverted grey scale and for signed integers.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _SIGNED = 0, 2


class UnsupportedImageError(ValueError):
    """An intact image is rejected; the message needs no further context."""


def _pillow() -> Any:
    try:
        return importlib.import_module("PIL.Image")
    except ImportError as error:
        raise ImportError(
            f'reading image files needs Pillow: pip install "camlens[data]" ({error})'
        ) from error


def _check_file(path: Path) -> None:
    """Check the type of a file before opening it, since opening a pipe would block."""
    try:
        facts = path.stat()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {path}: check its name and folder") from error
    if stat.S_ISDIR(facts.st_mode):
        raise IsADirectoryError(f"{path} is a folder, expected an image file: name files in it")
    if not stat.S_ISREG(facts.st_mode):
        raise OSError(f"{path} is a pipe, socket or device, expected an image file: save it first")
    if facts.st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes): get a complete copy, or leave it out")


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UnsupportedImageError(
            f"{path} is rejected: {width} x {height} pixels exceed the limit of "
            f"{MAX_PIXELS // 10**6} megapixels; make it smaller first"
        )


def _is_system_error(error: Exception) -> bool:
    """Return whether the system and not the file caused an error, so that a retry may succeed.

    Decoders' errors have no ``errno``, but a damaged offset leads to an invalid seek (EINVAL).
    """
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


def _turn_upright(image: Image.Image) -> None:
    """Apply the EXIF orientation, if it can be read."""
    from PIL import ImageOps

    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception as error:  # damaged tags do not affect the pixels
        if _is_system_error(error):
            raise


def _rgb(image: Image.Image, path: Path) -> Image.Image:
    if _SIGNED in _tag(image, _SAMPLE_FORMAT, (1,)):
        raise UnsupportedImageError(
            f"{path} has signed pixels, such as Hounsfield units, whose range is unknown: scale "
            "them to unsigned values of 8 or 16 bits first"
        )
    if image.mode.startswith("I") or image.mode == "F":
        return _from_wide(image, path)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = _pillow().new("RGBA", layer.size, "white")
        image = _pillow().alpha_composite(white, layer)
    return image.convert("RGB")


def _from_wide(image: Image.Image, path: Path) -> Image.Image:
    """Scale grey values of 12 or 16 bits, since Pillow's conversion would clip them."""
    bits = _tag(image, _BITS_PER_SAMPLE, (16,))[0]
    if image.mode == "F" or bits not in (12, 16):
        raise UnsupportedImageError(
            f"{path} has {bits}-bit pixels of mode {image.mode}, whose range is unknown: scale "
            "them to 8 or 16 bits first"
        )
    values = np.asarray(image).astype(np.float64) * (255 / (2**bits - 1))
    if _tag(image, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO:  # Pillow only inverts up to 8 bits
        values = 255 - values
    if "transparency" in image.info:  # a PNG file's transparent value
        values[np.asarray(image) == image.info["transparency"]] = 255
    grey: Image.Image = _pillow().fromarray((values + 0.5).clip(0, 255).astype(np.uint8))
    return grey.convert("RGB")


def _tag(image: Image.Image, tag: int, default: Any) -> Any:
    """Return the value of a TIFF file's tag; the default for other formats."""
    if image.format != "TIFF":
        return default
    return image.tag_v2.get(tag, default)  # type: ignore[attr-defined]


def _raise(error: OSError) -> None:
    raise error
