"""Write a run as one web page: a gallery of images with their heatmaps, and tables of findings.

Install with ``pip install "camlens[report]"``. The page needs no model, only a run's tables.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import write_whole
from .page import render
from .run_tables import Tables, load
from .sampling import sample

if TYPE_CHECKING:
    from ..dataset import Run

__all__ = ["write_report"]


#: Start of every page.
_START = b"<!doctype html"


def write_report(
    run: str | os.PathLike[str] | Run,
    out: str | os.PathLike[str] | None = None,
    *,
    limit: int = 2000,
    seed: int = 0,
) -> Path:
    """Write the report of a run: a single HTML file that needs no server, network or other file.

    The gallery at the top shows at most ``limit`` images. If the run has more, they are drawn at
    random in proportion to the labels, and the page states how many it shows. The findings below
    cover the whole run. If the run records the folder of its images, the page links to their files
    by relative paths.

    Args:
        run: the folder of a complete run that :func:`camlens.dataset.explain_dataset` wrote, or a
            :class:`camlens.dataset.Run`.
        out: path of the page; by default ``report.html`` in the run's folder.
        limit: largest number of images in the gallery.
        seed: seed of the random draw.

    Returns:
        The page's path.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full; an existing page stays
            unchanged.
        FileExistsError: ``out`` is a file other than a report page, such as a run's manifest.
        FileNotFoundError: there is no run.
        ValueError: the limit is negative, the run is incomplete, damaged or in a newer format
            (see :class:`camlens.dataset.Run`), or two of its explainers have the same method and
            layers.
    """
    if limit < 0:
        raise ValueError(f"expected a limit of at least 0 images, got {limit}")
    tables = load(run)
    out = tables.run.path / "report.html" if out is None else Path(out)
    if out.is_file() and _START not in out.read_bytes()[:200].lower():
        raise FileExistsError(
            f"{out} is not a page of a report and would be replaced: choose another name"
        )
    write_whole(out, rendered(tables, out.parent, limit=limit, seed=seed))
    return out


def rendered(tables: Tables, folder: Path, *, limit: int = 2000, seed: int = 0) -> bytes:
    """Render a run's tables as a page, with links to images' files relative to a folder."""
    page = render(tables, sample(tables.images, limit, seed=seed), folder)
    # A file name may not be valid Unicode; invalid parts become character references.
    return page.encode("utf-8", errors="xmlcharrefreplace")
