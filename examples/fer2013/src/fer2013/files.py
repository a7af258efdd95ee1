"""Results that are written whole or not at all."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file beside its place and rename it into it; its folder is made.

    Raises:
        OSError: the folder is not writable, or the disk is full; a file that was there before is
            then unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table with four digits."""
    write_whole(path, table.to_csv(index=False, float_format="%.4g").encode())


def write_json(values: dict[str, Any], path: Path) -> None:
    """Write values as JSON for people."""
    write_whole(path, (json.dumps(values, indent=2, sort_keys=True) + "\n").encode())


def write_figure(figure: Figure, path: Path, **options: Any) -> None:
    """Write a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", **options)
    write_whole(path, buffer.getvalue())
