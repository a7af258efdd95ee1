"""Write files atomically: complete or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file beside its place and rename it into it: a reader never sees half of it.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full; a file that was
            there before is then unchanged.
    """
    path = Path(path)
    # Not the process's number: in two containers on one disk that may be the same.
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # so that a power loss after the rename leaves no empty file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
