"""Shards on disk: folders that are there whole or not at all."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from filelock import FileLock, Timeout

from ..regions.tables import COLUMNS
from .tables import BINARY, Shard

if TYPE_CHECKING:
    import pandas as pd

#: What a shard's folder is called.
NAME = re.compile(r"shard-(\d{5,})")
_MANIFEST_PART = re.compile(r"\.manifest\.json\.[0-9a-f]+\.part")
_PART = re.compile(r"\.shard-\d{5,}\.([0-9a-f]+)(\..*)?\.part")
_WRITER = re.compile(r"\.([0-9a-f]{32})\.writer")
#: A half-written manifest older than this is of a process that was killed: it takes milliseconds.
_MANIFEST_SECONDS = 600

#: The file of a shard that tells its other files from damaged ones.
CHECKSUMS = "checksums.json"


def shard_name(number: int) -> str:
    """Return the name of a shard's folder.

    Example:
        >>> shard_name(7)
        'shard-00007'
    """
    return f"shard-{number:05d}"


def present(run: Path, tables: Sequence[str]) -> set[int]:
    """Return the numbers of the shards that are there, with all of their files.

    Args:
        run: the run's folder.
        tables: names of a shard's tables.

    Example:
        >>> sorted(present(Path("/no/such/folder"), ["images", "maps"]))
        []
    """
    files = [*(f"{name}.parquet" for name in tables), CHECKSUMS]
    found = set()
    if run.is_dir():
        for folder in run.iterdir():
            match = NAME.fullmatch(folder.name)
            if match and all((folder / name).is_file() for name in files):
                found.add(int(match[1]))
    return found


class Writer:
    """Writes shards of one run, beside other processes that may do so too.

    While the block lasts the process holds a lock in the run's folder, by which others tell its
    half-written shards from those of a process that was killed.

    Args:
        run: the run's folder.
        identity: of the run, kept with each shard.
        tables: names of a shard's tables.
    """

    def __init__(self, run: Path, identity: str, tables: Sequence[str]) -> None:
        self.run, self.identity, self.tables = run, identity, tables
        self._name = uuid.uuid4().hex
        self._lock = FileLock(_lock_of(run, self._name))

    def __enter__(self) -> Self:
        """Take the lock."""
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the lock, and remove it."""
        self._lock.release()
        _lock_of(self.run, self._name).unlink(missing_ok=True)

    def write(self, number: int, shard: Shard) -> None:
        """Write a shard into a hidden folder and rename that into its place.

        If the shard is there already, another process has written the same, and it is left alone;
        a folder in its place that lacks a file is replaced.

        Raises:
            OSError: the folder is not writable, or the disk is full. Nothing is left behind.
        """
        tables = {f"{name}.parquet": getattr(shard, name)() for name in self.tables}
        place = self.run / shard_name(number)
        part = self.run / f".{shard_name(number)}.{self._name}.part"
        part.mkdir()
        try:
            for name, table in tables.items():
                _write_durably(part / name, _parquet(table))
            write_checksums(part, self.identity, number)
            _put(part, place, is_there=lambda: number in present(self.run, self.tables))
            flush_folder(self.run)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def write_checksums(folder: Path, identity: str, number: int) -> None:
    """Write what tells a shard's files from damaged ones and from those of another shard."""
    sums = {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.parquet")}
    text = json.dumps({"run": identity, "shard": number, "sha256": dict(sorted(sums.items()))})
    _write_durably(folder / CHECKSUMS, f"{text}\n".encode())


def read_checked(path: Path, identity: str) -> bytes:
    """Read a file of a shard, and check that it is what was written there.

    Args:
        path: of the file.
        identity: of the run.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or is a file of another shard or run.
    """
    content = path.read_bytes()
    match = NAME.fullmatch(path.parent.name)
    try:
        sums = json.loads((path.parent / CHECKSUMS).read_bytes())
        kept, run, number = sums["sha256"][path.name], sums["run"], sums["shard"]
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        raise ValueError(
            f"{path.parent / CHECKSUMS} is damaged ({type(error).__name__})"
        ) from error
    if kept != sha256(content).hexdigest():
        raise ValueError("its content is not what was written")
    if run != identity:
        raise ValueError("the shard is of another run")
    if match is None or number != int(match[1]):
        raise ValueError(f"the shard is number {number}, which was renamed")
    return content


def read_table(
    path: Path, columns: Sequence[str], identity: str, *, only: Sequence[str] | None = None
) -> Any:
    """Read one Parquet file of a shard.

    Args:
        path: of the file.
        columns: that it must have.
        identity: of the run.
        only: columns to read; by default all.

    Raises:
        ValueError: it is damaged, of another shard or run, or lacks a column.
    """
    import pandas as pd
    from pyarrow import ArrowException

    try:
        file = io.BytesIO(read_checked(path, identity))
        table = pd.read_parquet(file, engine="pyarrow", columns=only)
        table[list(only or columns)]  # they are all there
    except (ArrowException, OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path} is damaged: {error}. Delete the folder {path.parent} and run explain_dataset "
            "again with the same options to make it anew"
        ) from error
    return table


def _lock_of(run: Path, writer: str) -> Path:
    return run / f".{writer}.writer"


def _put(part: Path, place: Path, *, is_there: Callable[[], bool]) -> None:
    if place.is_dir() and not is_there():
        lacking = part.with_name(f"{part.name.removesuffix('.part')}.old.part")
        place.rename(lacking)
        shutil.rmtree(lacking, ignore_errors=True)
    try:
        part.rename(place)
    except OSError:  # a folder with files in it is not replaced
        if not is_there():
            raise


def clear_parts(run: Path) -> None:
    """Remove what killed processes left half-written; parts of live ones stay."""
    live: set[str] = set()
    for path in run.iterdir():
        if match := _WRITER.fullmatch(path.name):
            lock = FileLock(path)
            try:
                lock.acquire(blocking=False)
            except (Timeout, OSError):
                live.add(match[1])
                continue
            lock.release()
            path.unlink(missing_ok=True)
    for path in run.iterdir():
        match = _PART.fullmatch(path.name)
        if match and match[1] not in live:
            shutil.rmtree(path, ignore_errors=True)
        elif _MANIFEST_PART.fullmatch(path.name) and _age(path) > _MANIFEST_SECONDS:
            path.unlink(missing_ok=True)


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:  # renamed into its place meanwhile
        return 0.0


def _parquet(table: pd.DataFrame | None) -> memoryview:
    """Return a table as a file: the same bytes in each run, for nothing in it tells the time."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    if table is None:  # a shard without a readable image; of what types columns are is not known
        table = pd.DataFrame(columns=list(COLUMNS))
    arrow = pa.Table.from_pandas(table, preserve_index=False, nthreads=1)
    for name in set(BINARY) & set(table.columns):
        place = arrow.schema.get_field_index(name)
        arrow = arrow.set_column(place, name, arrow.column(name).cast(pa.binary()))
    kinds = pa.types
    texts = [
        f.name for f in arrow.schema if kinds.is_string(f.type) or kinds.is_large_string(f.type)
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(arrow, sink, compression="zstd", use_dictionary=texts)
    return memoryview(sink.getvalue())


def _write_durably(path: Path, content: bytes | memoryview) -> None:
    """Write a file through to the disk, so that a rename after it never shows an empty file."""
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.filename is None:  # of a full disk the system does not say
            error.filename = os.fspath(path)
        raise


def flush_folder(folder: Path) -> None:
    """Write a folder's entries through to the disk."""
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
