"""Shards on disk: folders that are there whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..regions.tables import COLUMNS
from .tables import BINARY, Shard

if TYPE_CHECKING:
    import pandas as pd

#: What a shard's folder is called.
NAME = re.compile(r"shard-(\d{5,})")
_MANIFEST_PART = re.compile(r"\.manifest\.json\.[0-9a-f]+\.part")
_PART = re.compile(r"\.shard-\d{5,}\..*\.part")


def shard_name(number: int) -> str:
    """Return the name of a shard's folder.

    Example:
        >>> shard_name(7)
        'shard-00007'
    """
    return f"shard-{number:05d}"


def files_of(*, regions: bool) -> tuple[str, ...]:
    """Return the names of a shard's files."""
    return ("images.parquet", "maps.parquet", *(["regions.parquet"] if regions else []))


def present(run: Path, *, regions: bool) -> set[int]:
    """Return the numbers of the shards that are there, with all of their files.

    Example:
        >>> sorted(present(Path("/no/such/folder"), regions=False))
        []
    """
    found = set()
    if run.is_dir():
        for folder in run.iterdir():
            match = NAME.fullmatch(folder.name)
            if match and all((folder / name).is_file() for name in files_of(regions=regions)):
                found.add(int(match[1]))
    return found


def write_shard(run: Path, number: int, shard: Shard, *, regions: bool) -> None:
    """Write a shard into a hidden folder and rename that into its place.

    If the shard is there already, another process has written the same, and it is left alone;
    a folder in its place that lacks a file is replaced.

    Raises:
        OSError: the folder is not writable, or the disk is full. Nothing is left behind.
    """
    tables = {"images.parquet": shard.images(), "maps.parquet": shard.maps()}
    if regions:
        tables["regions.parquet"] = shard.regions()
    place = run / shard_name(number)
    part = _part(run, number)
    part.mkdir()
    try:
        for name, table in tables.items():
            _write_durably(part / name, _parquet(table))
        _put(part, place, is_there=lambda: number in present(run, regions=regions))
        _flush_folder(run)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _part(run: Path, number: int) -> Path:
    return run / f".{shard_name(number)}.{uuid.uuid4().hex}.part"


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


def clear_parts(run: Path, *, manifests: bool = False) -> None:
    """Remove what killed processes left half-written.

    Args:
        run: the run's folder.
        manifests: also of the manifest, which other ranks may be writing right now.
    """
    for path in run.iterdir():
        if _PART.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)
        elif manifests and _MANIFEST_PART.fullmatch(path.name):
            path.unlink(missing_ok=True)


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
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
