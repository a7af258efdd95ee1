"""Write and read shards on disk; each is a folder that is written atomically."""

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

#: Names of shards' folders.
NAME = re.compile(r"shard-(\d{5,})")
_MANIFEST_PART = re.compile(r"\.manifest\.json\.[0-9a-f]+\.part")
_PART = re.compile(r"\.shard-\d{5,}\.([0-9a-f]+)(\..*)?\.part")
_WRITER = re.compile(r"\.([0-9a-f]{32})\.writer")
#: A partial manifest older than this was left by a killed process: writing one takes milliseconds.
_MANIFEST_SECONDS = 600

#: The file with the checksums of a shard's other files.
CHECKSUMS = "checksums.json"


def shard_name(number: int) -> str:
    """Return the name of a shard's folder.

    Example:
        >>> shard_name(7)
        'shard-00007'
    """
    return f"shard-{number:05d}"


def present(run: Path, tables: Sequence[str]) -> set[int]:
    """Return the numbers of the complete shards in a run's folder.

    Args:
        run: the run's folder.
        tables: names of a shard's tables.

    Example:
        >>> sorted(present(Path("/no/such/folder"), ["images", "maps"]))
        []
    """
    files = [*(f"{name}.parquet" for name in tables), CHECKSUMS]
    numbers = set()
    if run.is_dir():
        for folder in run.iterdir():
            match = NAME.fullmatch(folder.name)
            if match and all((folder / name).is_file() for name in files):
                numbers.add(int(match[1]))
    return numbers


class Writer:
    """Writes shards of one run; several processes may write to the same run.

    Inside the block the process holds a lock in the run's folder, by which other processes
    distinguish its partial shards from those of a killed process.

    Args:
        run: the run's folder.
        identity: the run's identity, stored with each shard.
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
        """Release the lock and remove it."""
        self._lock.release()
        _lock_of(self.run, self._name).unlink(missing_ok=True)

    def write(self, number: int, shard: Shard) -> None:
        """Write a shard into a hidden folder, then rename the folder to the shard's name.

        If the shard exists already, another process has written the same content, and it stays; an
        incomplete folder of that name is replaced.

        Raises:
            OSError: the folder is not writable, or the disk is full. No partial shard remains.
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
    """Write the checksums of a shard's files, with the run's identity and the shard's number."""
    sums = {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.parquet")}
    text = json.dumps({"run": identity, "shard": number, "sha256": dict(sorted(sums.items()))})
    _write_durably(folder / CHECKSUMS, f"{text}\n".encode())


def read_checked(path: Path, identity: str) -> bytes:
    """Read a file of a shard and verify its checksum, run and shard number.

    Args:
        path: the file.
        identity: the run's identity.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is damaged, or belongs to another shard or run.
    """
    content = path.read_bytes()
    match = NAME.fullmatch(path.parent.name)
    try:
        sums = json.loads((path.parent / CHECKSUMS).read_bytes())
        expected, run, number = sums["sha256"][path.name], sums["run"], sums["shard"]
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        raise ValueError(
            f"{path.parent / CHECKSUMS} is damaged ({type(error).__name__})"
        ) from error
    if expected != sha256(content).hexdigest():
        raise ValueError("its content does not match its checksum")
    if run != identity:
        raise ValueError("the shard belongs to another run")
    if match is None or number != int(match[1]):
        raise ValueError(f"the shard is number {number} and was renamed")
    return content


def read_table(
    path: Path, columns: Sequence[str], identity: str, *, only: Sequence[str] | None = None
) -> Any:
    """Read one Parquet file of a shard.

    Args:
        path: the file.
        columns: required columns.
        identity: the run's identity.
        only: columns to read; by default all.

    Raises:
        ValueError: the file is damaged, belongs to another shard or run, or lacks a column.
    """
    import pandas as pd
    from pyarrow import ArrowException

    try:
        file = io.BytesIO(read_checked(path, identity))
        table = pd.read_parquet(file, engine="pyarrow", columns=only)
        table[list(only or columns)]  # raises if a column is missing
    except (ArrowException, OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path} is damaged: {error}. Delete the folder {path.parent} and run explain_dataset "
            "again with the same options to write it again"
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
    except NotADirectoryError as error:
        raise NotADirectoryError(
            f"{place} is a file or a broken link, expected the folder of a shard: delete it, and "
            "repeat the call"
        ) from error
    except OSError:  # rename does not replace a folder that contains files
        if not is_there():
            raise


def clear_parts(run: Path) -> None:
    """Remove partial shards of killed processes; those of running processes stay."""
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
    except FileNotFoundError:  # renamed in the meantime
        return 0.0


def _parquet(table: pd.DataFrame | None) -> memoryview:
    """Encode a table as Parquet; the bytes are the same in each run and contain no time."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    if table is None:  # a shard without a readable image; the columns' types are unknown
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
    """Write a file and flush it to disk, so that a later rename never shows an empty file."""
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.filename is None:  # the system does not name it if the disk is full
            error.filename = os.fspath(path)
        raise


def flush_folder(folder: Path) -> None:
    """Flush a folder's entries to disk."""
    if os.name != "posix":  # other systems cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
