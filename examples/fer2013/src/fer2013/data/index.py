"""A CSV index of FER2013 that selects images for training and may correct their labels.

The columns are ``name``, ``usage``, ``label``, ``keep`` (1 or 0), ``reason`` and ``digest``. Edit
``label`` and ``keep`` by hand. ``digest`` identifies the pixels, so that an index cannot be applied
to other data.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from ..files import sha256, write_csv
from .faces import CLASSES, USAGES, Faces

_COLUMNS = ("name", "usage", "label", "keep", "reason", "digest")


def write_index(faces: Faces, reasons: np.ndarray, path: Path) -> None:
    """Write an index of all data; ``reasons``, (N,) str, say why to drop an image, if at all."""
    table = pd.DataFrame(
        {
            "name": faces.names,
            "usage": np.array(USAGES)[faces.usages],
            "label": np.array(CLASSES)[faces.labels],
            "keep": (reasons == "").astype(int),
            "reason": reasons,
            "digest": _digests(faces),
        }
    )
    write_csv(table, path)


def read_index(path: Path, faces: Faces) -> Faces:
    """Return the images that an index keeps, with its labels, in the order of ``faces``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an index, belongs to other data, has duplicate or unknown names or an
            unknown label, or keeps nothing.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no index at {path}: create one by 'python -m fer2013 audit --drop'"
        )
    table = _read(path)
    _check_faces(path, table, faces)
    table = table.set_index("name").loc[faces.names.astype(str)]
    other = np.flatnonzero(
        (table["digest"].to_numpy() != _digests(faces))
        | (table["usage"].to_numpy() != np.array(USAGES)[faces.usages])
    )
    if len(other):
        raise ValueError(
            f"{path} belongs to other data: {len(other)} of {len(faces)} images differ in pixels "
            f"or split, first {faces.names[other[0]]}; run 'python -m fer2013 audit' on this data"
        )
    kept = (table["keep"] == "1").to_numpy()
    if not kept.any():
        raise ValueError(f"{path} keeps no images: set keep to 1 for some")
    labels = np.array([CLASSES.index(name) for name in table["label"]], np.int64)
    return dataclasses.replace(faces, labels=labels, index=sha256(path)[:16]).take(kept)


def _read(path: Path) -> pd.DataFrame:
    try:
        # As text: "00012" and "12" are different names.
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError as error:  # pandas' parser errors and undecodable bytes
        raise ValueError(
            f"expected {path} as a CSV file, but reading it failed: {error}"
        ) from error
    if missing := [name for name in _COLUMNS if name not in table.columns]:
        raise ValueError(f"{path} is not an index: it lacks the columns {', '.join(missing)}")
    for column, allowed in (("label", CLASSES), ("keep", ("0", "1"))):
        if (wrong := ~table[column].isin(allowed)).any():
            row = int(wrong.to_numpy().argmax())
            raise ValueError(
                f"{path}, line {row + 2}: expected {column} as one of {', '.join(allowed)}, got "
                f"{table[column][row]!r}"
            )
    return table


def _check_faces(path: Path, table: pd.DataFrame, faces: Faces) -> None:
    if (twice := table["name"].duplicated()).any():
        raise ValueError(f"{path} contains {table['name'][twice].iloc[0]} twice")
    named, there = set(table["name"]), set(faces.names.astype(str).tolist())
    if named != there:
        strange, lacking = sorted(named - there), sorted(there - named)
        example = f"{strange[0]} is not in the data" if strange else f"it lacks {lacking[0]}"
        raise ValueError(
            f"{path} belongs to other data: {example}; {len(strange)} of its images are not in the "
            f"data, and it lacks {len(lacking)} images of the data"
        )


def _digests(faces: Faces) -> np.ndarray:
    return np.array([hashlib.sha256(image.tobytes()).hexdigest()[:12] for image in faces.images])
