"""Region scores as a pandas table, with a row for each image, target and region."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..files import write_whole
from .scores import Scores, ranks

if TYPE_CHECKING:
    import pandas as pd

    from ..faithfulness import RegionAblation

#: The columns of every table, in order.
COLUMNS = (
    *("image", "k", "target", "region", "label", "prediction", "correct"),
    *("method", "layer", "grid", "score", "area", "evidence", "resolvable"),
    *("share", "density", "pointing_game", "iou", "density_rank"),
)

#: Further columns of a table made with an ablation.
ABLATION_COLUMNS = (
    *("infill", "drop", "baseline", "excess", "standard_error", "exceeds"),
    *("probability_drop", "probability_baseline", "probability_excess"),
    *("probability_standard_error", "agreement"),
)


def table(
    scores: Scores,
    *,
    labels: Tensor | Sequence[int] | None = None,
    predictions: Tensor | Sequence[int] | None = None,
    ablation: RegionAblation | None = None,
    classes: Sequence[str] | None = None,
    images: Sequence[int] | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return scores as a table with a row for each image, target and region.

    Tables of several methods, layers or models can be joined with ``pandas.concat``: every table
    has the same columns, and unknown values are missing (``<NA>``).

    Args:
        scores: scores of N images, K targets each and R regions.
        labels: N class ids of the images; -1 if unknown.
        predictions: N class ids that the model predicted; -1 if unknown.
        ablation: an ablation of the same images, targets and regions.
        classes: class names, by id; they replace ids in the columns ``target``, ``label`` and
            ``prediction``.
        images: N distinct numbers or names; by default 0 to N - 1.

    Returns:
        N * K * R rows, ordered by image, target, region. ``k`` counts an image's targets from 0,
        ``correct`` is whether label and prediction are equal, ``layer`` joins several names with
        "+", ``grid`` reads "12x12". With an ablation, the table also has its values and each map's
        ``agreement`` with it (:func:`camlens.regions.agreement`), repeated for each region.

    Raises:
        TypeError: ``scores`` are not scores, or labels, predictions or images have a wrong type.
        ValueError: there are not N labels, predictions or images, an image is repeated, an id has
            no name, or the ablation has other images, targets or regions.

    Example:
        >>> import torch
        >>> from camlens.regions import Regions, score
        >>> halves = Regions.from_boxes(["left", "right"], [[0, 0, 1, 1], [1, 0, 2, 1]], (1, 2))
        >>> scores = score(torch.tensor([[[[1.0, 3.0]]]]), halves)
        >>> table(scores, labels=[1], classes=["sad", "happy"])[["label", "region", "share"]]
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
    repeated = np.zeros(len(image), dtype=np.intp)
    label_ids, predicted = _ids(labels, n, "labels"), _ids(predictions, n, "predictions")
    columns: dict[str, Any] = {
        "image": _images(images, n).take(image),
        "k": np.tile(np.repeat(np.arange(k), r), n),
        "target": _named(_numbers(scores.targets).repeat(r), classes),
        "region": pd.array(list(scores.names), dtype="string").take(np.tile(np.arange(r), n * k)),
        "label": _named(label_ids, classes).take(image),
        "prediction": _named(predicted, classes).take(image),
        "correct": _correct(label_ids, predicted).take(image),
        "method": pd.array([scores.method], dtype="string").take(repeated),
        "layer": pd.array(["+".join(scores.layers)], dtype="string").take(repeated),
        "grid": pd.array(["x".join(map(str, scores.grid))], dtype="string").take(repeated),
        "score": _numbers(scores.scores).repeat(r),
        "area": _numbers(scores.area.unsqueeze(1).expand(n, k, r)),
        "evidence": _numbers(scores.evidence).repeat(r),
    }
    for name in ("resolvable", "share", "density", "pointing_game", "iou", "density_rank"):
        columns[name] = _numbers(getattr(scores, name))
    if ablation is not None:
        # First, as it checks that scores and ablation belong together.
        rank_correlation = _numbers(agreement(scores, ablation)).repeat(r)
        columns["infill"] = pd.array([ablation.infill], dtype="string").take(repeated)
        for name in ABLATION_COLUMNS[1:-1]:
            columns[name] = _numbers(getattr(ablation, name))
        columns["agreement"] = rank_correlation
    return pd.DataFrame(columns)


def agreement(scores: Scores, ablation: RegionAblation) -> Tensor:
    """Return the rank correlation of the regions' density and the excess of their ablation.

    Spearman's coefficient is 1 if the map ranks the regions by how much the score depends on them,
    and 0 if unrelated. The function uses the ablation's ``excess`` rather than its ``drop``
    because density, too, is relative to a baseline. The noise of the random placements determines
    the ranks of regions that matter little: more ``placements`` give a more reliable order. Over R
    regions, the coefficient of an unrelated map has a standard deviation of 1 / sqrt(R - 1).

    Args:
        scores: scores of heatmaps.
        ablation: an ablation of the same images, targets and regions.

    Returns:
        (N, K) in [-1, 1]; NaN if fewer than three regions have both values, or if either value is
        equal for all regions.

    Raises:
        ValueError: scores and ablation differ in their images, targets or regions.
    """
    _check_same(scores, ablation)
    density, excess = scores.density.round(decimals=4), ablation.excess.to(scores.density.device)
    both = density.isfinite() & excess.isfinite()
    count = both.sum(dim=-1)
    ranked = torch.stack([ranks(v.where(both, torch.nan)) for v in (density, excess)])
    mean = ranked.where(both, 0).sum(dim=-1, keepdim=True) / count.unsqueeze(-1)
    a, b = (ranked - mean).where(both, 0).double().unbind()
    spread = (a.square().sum(dim=-1) * b.square().sum(dim=-1)).sqrt()
    defined = (count >= 3) & (spread > 0)
    return ((a * b).sum(dim=-1) / spread).where(defined, torch.nan).float()


def _check_same(scores: Scores, ablation: RegionAblation) -> None:
    if scores.names != ablation.names or scores.density.shape != ablation.drop.shape:
        raise ValueError(
            f"expected scores and ablation of the same images, targets and regions, got "
            f"{tuple(scores.density.shape)} of {scores.names} and {tuple(ablation.drop.shape)} of "
            f"{ablation.names}"
        )
    known = (scores.targets.cpu() >= 0) & (ablation.targets.cpu() >= 0)
    if (known & (scores.targets.cpu() != ablation.targets.cpu())).any():
        raise ValueError(
            "the scores and the ablation are of different targets: ablate with "
            "targets=explanation.targets"
        )


def write(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table to one Parquet file, atomically.

    Args:
        table: from :func:`table`, or several joined; further columns are written, the index is not.
        path: path of the file, in an existing folder.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full. An existing file then
            stays unchanged.
        ValueError: columns are missing.
    """
    check_columns(table, COLUMNS)
    write_whole(path, table.to_parquet(None, engine="pyarrow", index=False))


def read(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table that :func:`write` wrote.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged, not a Parquet file, or another kind of table.
    """
    import pandas as pd
    from pyarrow import ArrowException

    content = Path(path).read_bytes()
    try:
        rows = pd.read_parquet(io.BytesIO(content), engine="pyarrow")
        check_columns(rows, COLUMNS)
    except (ArrowException, OSError, ValueError) as error:
        raise ValueError(
            f"{path} is not a complete table of region scores: {error}; write it again with "
            "camlens.regions.write(table, path)"
        ) from error
    return rows


def check_columns(table: pd.DataFrame, names: Sequence[str]) -> None:
    """Check that a table has the given columns.

    Raises:
        ValueError: columns are missing; the message says how to make a table with them.
    """
    lacking = [name for name in names if name not in table.columns]
    if not lacking:
        return
    remedy = "make the table with camlens.regions.table(scores)"
    if any(name in ABLATION_COLUMNS for name in lacking):
        remedy = "make the table with camlens.regions.table(scores, ablation=...)"
    raise ValueError(f"the table has no columns {lacking}: {remedy}")


def _numbers(values: Tensor) -> np.ndarray[Any, Any]:
    flat: np.ndarray[Any, Any] = values.detach().cpu().reshape(-1).numpy()
    return flat


def _ids(given: Tensor | Sequence[int] | None, n: int, kind: str) -> np.ndarray[Any, Any]:
    """Return N class ids; -1 if unknown."""
    if given is None:
        return np.full(n, -1)
    ids = np.asarray(given.cpu() if isinstance(given, Tensor) else given)
    if ids.shape != (n,):
        raise ValueError(f"expected {kind} of {n} images, got the shape {ids.shape}")
    if ids.dtype.kind not in "iu":
        raise TypeError(
            f"expected {kind} as integer class ids, got {ids.dtype}: pass the names as classes="
        )
    return ids.astype(np.int64)


def _named(ids: np.ndarray[Any, Any], classes: Sequence[str] | None) -> Any:
    """Return class ids, or names if given; negative ids are missing."""
    import pandas as pd

    if classes is None:
        return pd.arrays.IntegerArray(ids.astype(np.int64), ids < 0)
    if ids.max(initial=-1) >= len(classes):
        raise ValueError(f"expected a name for class {ids.max()}, got {len(classes)} classes")
    # -1 means missing.
    return pd.array(list(classes), dtype="string").take(np.maximum(ids, -1), allow_fill=True)


def _correct(labels: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any]) -> Any:
    import pandas as pd

    return pd.arrays.BooleanArray(labels == predicted, (labels < 0) | (predicted < 0))


def _images(given: Sequence[int] | Sequence[str] | None, n: int) -> Any:
    """Return N distinct numbers or names of images."""
    import pandas as pd

    if given is None:
        return pd.Series(np.arange(n)).array
    ids = list(given)
    if len(ids) != n:
        raise ValueError(f"expected numbers or names for {n} images, got {len(ids)}")
    if len(set(ids)) != n:
        twice = next(name for name in ids if ids.count(name) > 1)
        raise ValueError(f"expected each image once, got {twice!r} again")
    if all(isinstance(name, str) for name in ids):
        return pd.array(ids, dtype="string")
    numbers = np.asarray(ids)
    if numbers.dtype.kind not in "iu":
        raise TypeError(f"expected images as integers or strings, got {numbers.dtype}")
    return pd.Series(numbers.astype(np.int64)).array
