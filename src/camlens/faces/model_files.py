"""The detectors' model files: yours where you name one, else downloaded once and checked."""

from __future__ import annotations

import dataclasses
import importlib
import os
from pathlib import Path

_FOLDER_VARIABLE = "CAMLENS_MODELS"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A published model file.

    Attributes:
        name: of the file, as published.
        url: where it is downloaded from.
        sha256: its checksum, 64 hexadecimal digits.
        variable: the environment variable that may name a file to use in its place.
        licence: SPDX identifier.
    """

    name: str
    url: str
    sha256: str
    variable: str
    licence: str


#: The files of :class:`~camlens.faces.YuNet` and ``MediaPipe``. The addresses could
#: not be tried where this was written, a place without a network.
MODEL_FILES = {
    "yunet": ModelFile(
        name="face_detection_yunet_2026may.onnx",
        # The repository keeps its models in Git LFS, where a raw.githubusercontent.com address
        # gives a few lines of text that point to the file; this host gives the file. The commit
        # is named, since a branch moves on and its file with it.
        url="https://media.githubusercontent.com/media/opencv/opencv_zoo/"
        "26cc381e4d2594bb9f47a26eb8fd96c94a13660d/models/face_detection_yunet/"
        "face_detection_yunet_2026may.onnx",
        sha256="ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0",
        variable="CAMLENS_YUNET",
        licence="MIT",
    ),
    "face_landmarker": ModelFile(
        name="face_landmarker.task",
        url="https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/"
        "float16/1/face_landmarker.task",
        sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
        variable="CAMLENS_FACE_LANDMARKER",
        licence="Apache-2.0",
    ),
}


def find(model: str | ModelFile, path: str | os.PathLike[str] | None = None) -> Path:
    """Return a model's file, from the first of these places that is named.

    1. ``path``;
    2. the file that the model's own environment variable names (``CAMLENS_YUNET``,
       ``CAMLENS_FACE_LANDMARKER``);
    3. the file of the published name in the folder that ``CAMLENS_MODELS`` names;
    4. the user's cache, into which it is downloaded if it is not there.

    A place that you name is used as it is: without the network and the cache, and with whatever
    is in it, since it may be a version of your own. Only the cache is held to the checksum.

    Args:
        model: ``"yunet"``, ``"face_landmarker"``, or a file of your own description.
        path: a file to use.

    Returns:
        The path of an existing file.

    Raises:
        LookupError: no such model.
        FileNotFoundError: there is no file at the place that was named.
        ImportError: no place was named, and pooch, which keeps the cache, is not installed.
        OSError: the file could not be downloaded, or has another checksum than the published
            one (nothing is kept then); says where to put it by hand.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile(suffix="my.onnx") as mine:
        ...     str(find("yunet", mine.name)) == mine.name
        True
    """
    entry = _entry(model)
    for source, named in _named(entry, path):
        if not named.is_file():
            raise FileNotFoundError(
                f"expected {entry.name} at {named}, which {source} names, but there is no such file"
            )
        return named
    return _cached(entry)


def _entry(model: str | ModelFile) -> ModelFile:
    if isinstance(model, ModelFile):
        return model
    if model not in MODEL_FILES:
        raise LookupError(f"expected a model of {sorted(MODEL_FILES)}, got {model!r}")
    return MODEL_FILES[model]


def _named(entry: ModelFile, path: str | os.PathLike[str] | None) -> list[tuple[str, Path]]:
    """Return what names a place and the place, first the one that counts."""
    file, folder = os.environ.get(entry.variable), os.environ.get(_FOLDER_VARIABLE)
    places = [("path", Path(path))] if path is not None else []
    if file:
        places.append((f"the environment variable {entry.variable}", Path(file)))
    if folder:
        source = f"the environment variable {_FOLDER_VARIABLE}"
        places.append((source, Path(folder, entry.name)))
    return [(source, place.expanduser()) for source, place in places]


def _cached(entry: ModelFile) -> Path:
    try:
        pooch = importlib.import_module("pooch")
    except ImportError as error:
        raise ImportError(
            f'downloading {entry.name} needs pooch: pip install "camlens[regions]"; '
            f"or name a file of yours, as path or in {entry.variable}"
        ) from error
    cache = pooch.os_cache("camlens")
    try:
        # Written beside its place, checked, and only then moved there.
        known = f"sha256:{entry.sha256}"
        return Path(pooch.retrieve(entry.url, known, fname=entry.name, path=cache))
    except (OSError, ValueError) as error:  # ValueError: another checksum
        raise OSError(
            f"could not get {entry.name} ({entry.licence}) from {entry.url}: {error}. Download "
            f"it where there is a network (sha256 {entry.sha256}) and put it into {cache}, or "
            f"name the file in the environment variable {entry.variable}, or its folder in "
            f"{_FOLDER_VARIABLE}"
        ) from error
