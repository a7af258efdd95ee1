"""Scores as a tidy table: a row an image, target and region, in pandas and in Parquet."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..files import write_whole
from .agreements import agreement
from .scores import Scores

if TYPE_CHECKING:
    import pandas as pd

    from .effects import Effect

#: The columns of every table, in order.
COLUMNS = (
    *("image", "k", "target", "region", "label", "prediction", "correct"),
    *("method", "layer", "grid", "score", "area", "evidence", "resolvable"),
    *("share", "density", "hit", "overlap", "rank"),
)

#: What a table has besides when an effect was given.
EFFECT_COLUMNS = (
    *("fill", "drop", "chance", "excess"),
    *("probability_drop", "probability_chance", "probability_excess", "agreement"),
)


def table(
    scores: Scores,
    *,
    labels: Tensor | Sequence[int] | None = None,
    predictions: Tensor | Sequence[int] | None = None,
    effect: Effect | None = None,
    classes: Sequence[str] | None = None,
    images: Sequence[int] | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Lay scores out as a table: a row for each image, target and region.

    Tables of several methods, layers or models are put together with ``pandas.concat``. What is
    unknown is missing (``<NA>``), not left out: every table has the same columns.

    Args:
        scores: of N images, K targets each and R regions.
        labels: N class ids, what the images show; -1 where unknown.
        predictions: N class ids, what the model said; -1 where unknown.
        effect: of the same images, targets and regions.
        classes: the classes' names, by id; they then stand for ids in the columns ``target``,
            ``label`` and ``prediction``.
        images: N numbers or names, each once; by default 0 to N - 1.

    Returns:
        N * K * R rows, ordered by image, target, region. ``k`` counts an image's targets from 0,
        ``correct`` is whether label and prediction are equal, ``layer`` joins several with "+",
        ``grid`` reads "12x12". With an effect, what it measured, and each map's ``agreement``
        with it (:func:`camlens.regions.agreement`), repeated for each region.

    Raises:
        TypeError: no scores, or labels, predictions or images of a wrong type.
        ValueError: not N of them, an image given twice, an id without a name, or an effect of
            other images, targets or regions.

    Example:
        >>> import torch
        >>> from camlens.regions import Regions, score
        >>> halves = Regions.from_boxes(["left", "right"], [[0, 0, 1, 1], [1, 0, 2, 1]], (1, 2))
        >>> found = score(torch.tensor([[[[1.0, 3.0]]]]), halves)
        >>> table(found, labels=[1], classes=["sad", "happy"])[["label", "region", "share"]]
           label region  share
        0  happy   left   0.25
        1  happy  right   0.75
    """
    import pandas as pd

    if not isinstance(scores, Scores):
        raise TypeError(
            f"expected Scores, as camlens.regions.score returns them, got {type(scores).__name__}"
        )
    n, k, r = scores.share.shape
    image = np.repeat(np.arange(n), k * r)
    one = np.zeros(len(image), dtype=np.intp)
    truth, said = _ids(labels, n, "labels"), _ids(predictions, n, "predictions")
    columns: dict[str, Any] = {
        "image": _images(images, n).take(image),
        "k": np.tile(np.repeat(np.arange(k), r), n),
        "target": _named(_numbers(scores.targets).repeat(r), classes),
        "region": pd.array(list(scores.names), dtype="string").take(np.tile(np.arange(r), n * k)),
        "label": _named(truth, classes).take(image),
        "prediction": _named(said, classes).take(image),
        "correct": _correct(truth, said).take(image),
        "method": pd.array([scores.method], dtype="string").take(one),
        "layer": pd.array(["+".join(scores.layers)], dtype="string").take(one),
        "grid": pd.array(["x".join(map(str, scores.grid))], dtype="string").take(one),
        "score": _numbers(scores.scores).repeat(r),
        "area": _numbers(scores.area.unsqueeze(1).expand(n, k, r)),
        "evidence": _numbers(scores.evidence).repeat(r),
    }
    for name in ("resolvable", "share", "density", "hit", "overlap", "rank"):
        columns[name] = _numbers(getattr(scores, name))
    if effect is not None:
        agreed = _numbers(agreement(scores, effect)).repeat(
            r
        )  # checks that the two belong together
        columns["fill"] = pd.array([effect.fill], dtype="string").take(one)
        for name in EFFECT_COLUMNS[1:-1]:
            columns[name] = _numbers(getattr(effect, name))
        columns["agreement"] = agreed
    return pd.DataFrame(columns)


def write(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table to one Parquet file, whole or not at all.

    Args:
        table: what :func:`table` returned, or several put together; further columns are kept, the
            index is not.
        path: of the file; its folder exists.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full; a file that was there
            before is then unchanged.
        ValueError: columns are missing.
    """
    check_columns(table, COLUMNS)
    write_whole(path, table.to_parquet(None, engine="pyarrow", index=False))


def read(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read what :func:`write` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, no Parquet file, or no table of this kind.
    """
    import pandas as pd
    from pyarrow import ArrowException

    content = Path(path).read_bytes()
    try:
        found = pd.read_parquet(io.BytesIO(content), engine="pyarrow")
        check_columns(found, COLUMNS)
    except (ArrowException, OSError, ValueError) as error:
        raise ValueError(
            f"{path} is not a whole table of region scores: {error}; write it again with "
            "camlens.regions.write(table, path)"
        ) from error
    return found


def check_columns(table: pd.DataFrame, names: Sequence[str]) -> None:
    """Check that a table has the given columns.

    Raises:
        ValueError: it has not; says where they come from.
    """
    lacking = [name for name in names if name not in table.columns]
    if not lacking:
        return
    remedy = "make the table with camlens.regions.table(scores)"
    if any(name in EFFECT_COLUMNS for name in lacking):
        remedy = "make the table with camlens.regions.table(scores, effect=...)"
    raise ValueError(f"the table has no columns {lacking}: {remedy}")


def _numbers(values: Tensor) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = values.detach().cpu().reshape(-1).numpy()
    return found


def _ids(given: Tensor | Sequence[int] | None, n: int, kind: str) -> np.ndarray[Any, Any]:
    """Return N class ids, -1 where unknown."""
    if given is None:
        return np.full(n, -1)
    ids = np.asarray(given.cpu() if isinstance(given, Tensor) else given)
    if ids.shape != (n,):
        raise ValueError(f"expected {kind} of {n} images, got the shape {ids.shape}")
    if ids.dtype.kind not in "iu":
        raise TypeError(
            f"expected {kind} as class ids, whole numbers, got {ids.dtype}: name them with classes="
        )
    return ids.astype(np.int64)


def _named(ids: np.ndarray[Any, Any], classes: Sequence[str] | None) -> Any:
    """Return class ids, or names where given, with what is negative missing."""
    import pandas as pd

    if classes is None:
        return pd.arrays.IntegerArray(ids.astype(np.int64), ids < 0)
    if ids.max(initial=-1) >= len(classes):
        raise ValueError(f"expected a name for class {ids.max()}, got {len(classes)} classes")
    # -1 stands for missing.
    return pd.array(list(classes), dtype="string").take(np.maximum(ids, -1), allow_fill=True)


def _correct(truth: np.ndarray[Any, Any], said: np.ndarray[Any, Any]) -> Any:
    import pandas as pd

    return pd.arrays.BooleanArray(truth == said, (truth < 0) | (said < 0))


def _images(given: Sequence[int] | Sequence[str] | None, n: int) -> Any:
    """Return N numbers or names of images, each once."""
    import pandas as pd

    if given is None:
        return pd.Series(np.arange(n)).array
    ids = list(given)
    if len(ids) != n:
        raise ValueError(f"expected {n} images, got {len(ids)} numbers or names of them")
    if len(set(ids)) != n:
        twice = next(one for one in ids if ids.count(one) > 1)
        raise ValueError(f"expected each image once, got {twice!r} again")
    if all(isinstance(one, str) for one in ids):
        return pd.array(ids, dtype="string")
    found = np.asarray(ids)
    if found.dtype.kind not in "iu":
        raise TypeError(f"expected images as whole numbers or strings, got {found.dtype}")
    return pd.Series(found.astype(np.int64)).array
