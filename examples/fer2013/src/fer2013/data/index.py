"""An index of FER2013: which faces are trained on, and with which label.

The columns are ``name``, ``usage``, ``label``, ``keep`` (1 or 0), ``reason`` and ``digest``. A
``label`` or a ``keep`` can be changed by hand; the digest of a face's pixels holds the index to its
data.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from ..files import write_csv
from .faces import CLASSES, USAGES, Faces

_COLUMNS = ("name", "usage", "label", "keep", "reason", "digest")


def write_index(faces: Faces, reasons: np.ndarray, path: Path) -> None:
    """Write an index that leaves some faces out.

    Args:
        faces: all of the data.
        reasons: (N,) str, why a face is left out; empty keeps it.
        path: the file.
    """
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
    """Return the faces that an index keeps, with its labels, in their own order.

    Args:
        path: as :func:`write_index` wrote it.
        faces: all of the data that it was made for.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no index, of other data, names faces twice or ones that are not there,
            has an unknown label, or keeps nothing.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no index at {path}: 'python -m fer2013 audit --drop' writes one")
    table = _read(path)
    _check_faces(path, table, faces)
    table = table.set_index("name").loc[faces.names.astype(str)]
    other = np.flatnonzero(
        (table["digest"].to_numpy() != _digests(faces))
        | (table["usage"].to_numpy() != np.array(USAGES)[faces.usages])
    )
    if len(other):
        raise ValueError(
            f"{path} was made for other data: {len(other)} of {len(faces)} faces differ in pixels "
            f"or split, first {faces.names[other[0]]}; run 'python -m fer2013 audit' on this data"
        )
    kept = (table["keep"] == "1").to_numpy()
    if not kept.any():
        raise ValueError(f"{path} keeps no face")
    labels = np.array([CLASSES.index(name) for name in table["label"]], np.int64)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return dataclasses.replace(faces, labels=labels, index=digest).take(kept)


def _read(path: Path) -> pd.DataFrame:
    try:
        # As text: "00012" and "12" are different names.
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError as error:  # pandas' parser errors and undecodable bytes
        raise ValueError(f"{path} is not an index, which is a CSV file: {error}") from error
    if missing := [name for name in _COLUMNS if name not in table.columns]:
        raise ValueError(f"{path} is not an index: it lacks the columns {', '.join(missing)}")
    for column, allowed in (("label", CLASSES), ("keep", ("0", "1"))):
        if (wrong := ~table[column].isin(allowed)).any():
            row = int(wrong.to_numpy().argmax())
            raise ValueError(
                f"{path}, line {row + 2}: expected a {column} out of {', '.join(allowed)}, got "
                f"{table[column][row]!r}"
            )
    return table


def _check_faces(path: Path, table: pd.DataFrame, faces: Faces) -> None:
    if (twice := table["name"].duplicated()).any():
        raise ValueError(
            f"{path} names the face {table['name'][int(twice.to_numpy().argmax())]} twice"
        )
    named, there = set(table["name"]), set(faces.names.astype(str).tolist())
    if named != there:
        strange, lacking = sorted(named - there), sorted(there - named)
        example = f"names {strange[0]}, which is not there" if strange else f"lacks {lacking[0]}"
        raise ValueError(
            f"{path} was made for other data: it {example}; {len(strange)} of its faces are not in "
            f"the data, {len(lacking)} of the data's not in it"
        )


def _digests(faces: Faces) -> np.ndarray:
    return np.array([hashlib.sha256(image.tobytes()).hexdigest()[:12] for image in faces.images])
