"""Write files atomically: complete or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def write_whole(path: str | os.PathLike[str], content: bytes | memoryview) -> None:
    """Write a temporary file and rename it to ``path``, so that no reader sees a partial file.

    If the path is a symbolic link, the file that it points to is replaced.

    Raises:
        OSError: the path is a device or a pipe, the folder is missing or not writable, or the disk
            is full. An existing file then stays unchanged.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(f"{path} is a device or a pipe, not a regular file: choose another path")
    # A random name: process ids may coincide in two containers that share a disk.
    start = os.fsdecode(os.fsencode(path.name)[:200])  # names may have 255 bytes
    part = path.with_name(f".{start}.{uuid.uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # so that a power loss after the rename leaves no empty file
        part.replace(path)
    except OSError as error:
        if error.filename is None:  # the system names no file if the disk is full
            error.filename = os.fspath(path)
        raise
    finally:
        part.unlink(missing_ok=True)
