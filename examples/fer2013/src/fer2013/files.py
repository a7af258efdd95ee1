"""Write CSV, JSON and PNG files atomically: complete or not at all."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from camlens.files import write_whole


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Create the file's folder, write a temporary file there and rename it to ``path``.

    Raises:
        OSError: the folder is not writable, or the disk is full; an existing file stays unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table with four significant digits."""
    write_bytes(path, table.to_csv(index=False, float_format="%.4g").encode())


def write_json(values: dict[str, Any], path: Path) -> None:
    """Write values as indented JSON."""
    write_bytes(path, (json.dumps(values, indent=2, sort_keys=True) + "\n").encode())


def write_figure(figure: Figure, path: Path, **options: Any) -> None:
    """Write a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", **options)
    write_bytes(path, buffer.getvalue())


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
