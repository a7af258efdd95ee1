"""A run as one web page: every image with its heatmaps, and what was found in a table.

``pip install "camlens[report]"``. The page never sees a model: it is made of a run's tables.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import write_whole
from .page import render
from .sampling import sample
from .tables import Tables, load

if TYPE_CHECKING:
    from ..dataset import Run

__all__ = ["write_report"]


#: What every page begins with.
_START = b"<!doctype html"


def write_report(
    run: str | os.PathLike[str] | Run,
    out: str | os.PathLike[str] | None = None,
    *,
    limit: int = 2000,
    seed: int = 0,
) -> Path:
    """Write the report of a run: one HTML file that opens from disk and loads nothing else.

    The gallery comes first and holds ``limit`` images at most; of more, each label keeps its
    share, and the page says how many it shows. The findings below are those of the whole run.
    Where the run says in which folder its images are, the page links to their files, relative to
    the page.

    Args:
        run: the folder that :func:`camlens.dataset.explain_dataset` wrote, complete, or a
            :class:`camlens.dataset.Run`.
        out: path of the page; by default ``report.html`` in the run's folder.
        limit: of how many images the gallery has at most.
        seed: of the draw where there are more.

    Returns:
        The page's path.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full; a page that was
            there before is then unchanged.
        FileExistsError: ``out`` is a file that is no page, such as a run's manifest.
        FileNotFoundError: there is no run.
        ValueError: the limit is negative, or the run is incomplete, damaged or of a newer format
            (see :class:`camlens.dataset.Run`), or two of its explainers cannot be told apart.
    """
    if limit < 0:
        raise ValueError(f"expected a limit of at least 0 images, got {limit}")
    tables = load(run)
    out = tables.run.path / "report.html" if out is None else Path(out)
    if out.is_file() and _START not in out.read_bytes()[:200].lower():
        raise FileExistsError(
            f"{out} is no page of a report, and would be replaced by one: choose another name"
        )
    write_whole(out, rendered(tables, out.parent, limit=limit, seed=seed))
    return out


def rendered(tables: Tables, folder: Path, *, limit: int = 2000, seed: int = 0) -> bytes:
    """Return the page of a run's tables, with links to images' files relative to a folder."""
    page = render(tables, sample(tables.images, limit, seed=seed), folder)
    # A name on disk need not be valid Unicode: what is not becomes a mark of its own.
    return page.encode("utf-8", errors="xmlcharrefreplace")
