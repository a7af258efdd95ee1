"""Write files atomically: complete or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file beside its place and rename it into it: a reader never sees half of it.

    Of a link, the file that it leads to is written.

    Raises:
        OSError: the place is a device or a pipe, the folder is missing or not writable, or the
            disk is full; a file that was there before is then unchanged.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(f"{path} is a device or a pipe, which a file would replace: name a file")
    # Not the process's number: in two containers on one disk that may be the same.
    start = os.fsdecode(os.fsencode(path.name)[:200])  # names may have 255 bytes
    part = path.with_name(f".{start}.{uuid.uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # so that a power loss after the rename leaves no empty file
        part.replace(path)
    except OSError as error:
        if error.filename is None:  # of a full disk the system does not say
            error.filename = os.fspath(path)
        raise
    finally:
        part.unlink(missing_ok=True)
