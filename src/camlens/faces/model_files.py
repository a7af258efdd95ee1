"""Model files of the face detectors: given by the user, or downloaded once and verified."""

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
        name: file name, as published.
        url: address of the download.
        sha256: checksum, 64 hexadecimal digits.
        variable: environment variable that may name another file.
        licence: SPDX identifier.
    """

    name: str
    url: str
    sha256: str
    variable: str
    licence: str


#: The files of :class:`~camlens.faces.YuNet` and ``MediaPipe``. Downloads are untested: this code
#: was written without network access.
MODEL_FILES = {
    "yunet": ModelFile(
        name="face_detection_yunet_2026may.onnx",
        # The repository stores its models in Git LFS: raw.githubusercontent.com serves the pointer
        # and this host the file. The commit is pinned, since files on a branch change.
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
    """Return the path of a detector's model file, downloading it if necessary.

    The first of these sources that is set is used:

    1. ``path``;
    2. the environment variable of the model (``CAMLENS_YUNET``, ``CAMLENS_FACE_LANDMARKER``);
    3. the published file name in the folder ``CAMLENS_MODELS``;
    4. the user's cache, into which the file is downloaded if it is missing.

    Files from the first three sources are not verified, since they may be other versions; the
    cached file is verified by its checksum.

    Args:
        model: ``"yunet"``, ``"face_landmarker"``, or a :class:`ModelFile`.
        path: a file to use.

    Returns:
        The path of an existing file.

    Raises:
        LookupError: the model is unknown.
        FileNotFoundError: a source is set, but its file does not exist.
        ImportError: no source is set, and pooch, which manages the cache, is not installed.
        OSError: the file could not be downloaded, or its checksum is wrong (it is then deleted);
            the message says where to put the file manually.

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


def is_here(model: str | ModelFile) -> bool:
    """Return whether a model's file is available without downloading it.

    Raises:
        LookupError: the model is unknown.

    Example:
        >>> import os
        >>> os.environ["CAMLENS_YUNET"] = "/no/such/file"
        >>> is_here("yunet")
        False
        >>> del os.environ["CAMLENS_YUNET"]
    """
    entry = _entry(model)
    if named := _named(entry, None):
        return named[0][1].is_file()
    try:
        pooch = importlib.import_module("pooch")
    except ImportError:
        return False
    return Path(pooch.os_cache("camlens"), entry.name).is_file()


def _entry(model: str | ModelFile) -> ModelFile:
    if isinstance(model, ModelFile):
        return model
    if model not in MODEL_FILES:
        raise LookupError(f"expected one of the models {sorted(MODEL_FILES)}, got {model!r}")
    return MODEL_FILES[model]


def _named(entry: ModelFile, path: str | os.PathLike[str] | None) -> list[tuple[str, Path]]:
    """Return the sources that are set and their files, in order of precedence."""
    file, folder = os.environ.get(entry.variable), os.environ.get(_FOLDER_VARIABLE)
    sources = [("path", Path(path))] if path is not None else []
    if file:
        sources.append((f"the environment variable {entry.variable}", Path(file)))
    if folder:
        variable = f"the environment variable {_FOLDER_VARIABLE}"
        sources.append((variable, Path(folder, entry.name)))
    return [(source, path.expanduser()) for source, path in sources]


def _cached(entry: ModelFile) -> Path:
    try:
        pooch = importlib.import_module("pooch")
    except ImportError as error:
        raise ImportError(
            f'downloading {entry.name} needs pooch: pip install "camlens[regions]"; '
            f"or give your own file as path= or in {entry.variable}"
        ) from error
    cache = pooch.os_cache("camlens")
    try:
        # pooch downloads to a temporary file and moves it into the cache once it is verified.
        checksum = f"sha256:{entry.sha256}"
        return Path(pooch.retrieve(entry.url, checksum, fname=entry.name, path=cache))
    except (OSError, ValueError) as error:  # ValueError: another checksum
        raise OSError(
            f"{entry.name} is missing: {entry.variable} and {_FOLDER_VARIABLE} are not set, "
            f"{cache} lacks it, and the download failed ({_reason(error)}). Put the file of "
            f"curl -LO {entry.url} into that folder; if the face fills the picture, use "
            "face_template (--regions template)"
        ) from error


def _reason(error: Exception) -> str:
    """Return in a few words why pooch could not download a file."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP status {response.status_code}"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "its checksum is wrong"
