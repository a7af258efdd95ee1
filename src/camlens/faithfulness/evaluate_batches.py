"""Evaluate methods by metrics over a data set, batch by batch."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..explainers import Explainer
from ..progress import progress_bar
from .evaluation import COLUMNS, Evaluation
from .metric_result import MetricResult
from .metrics_by_name import DEFAULT_METRICS, METRICS, Metric, named_metrics

if TYPE_CHECKING:
    import pandas as pd

#: Deletion and insertion change so many rows of pixels in a step.
_ROWS = 8


def evaluate(
    explainers: Mapping[str, Explainer] | Sequence[Explainer],
    model: nn.Module,
    dataset: Any,
    *,
    metrics: Sequence[str | Metric] | Mapping[str, Metric] = DEFAULT_METRICS,
    targets: Any = None,
    batch_size: int = 16,
    progress: bool | None = None,
    **options: Any,
) -> Evaluation:
    """Compute metrics of several methods over a data set, each beside the same floors.

    An image's random numbers depend on the seed and its index, not on the batch it is in.

    Args:
        explainers: by name, or in a row, which then have the names of their methods. All of
            ``model``.
        model: in evaluation mode.
        dataset: images (N, C, *size); a data set or a ``DataLoader`` whose items are images, pairs
            of image and label, or (image, label, mask) with the object's mask (*size), which the
            localization metrics need.
        metrics: names of :data:`METRICS`; functions of the same form, such as
            ``functools.partial(deletion, step=50)``; or both by name. ``"deletion"`` and
            ``"insertion"`` change 8 rows of pixels in a step, as RISE's own runs over data sets.
        targets: what to explain. None: the predicted class. ``"label"``: each image's own. Else as
            explainers take them; a tensor has a row for each image of the data set.
        batch_size: images that are explained at once, where ``dataset`` is no ``DataLoader``.
        progress: whether a progress bar is shown. None: where standard error is a terminal.
        options: further ones of :class:`MetricOptions`, such as ``floors`` and ``seed``.

    Returns:
        The evaluation; its ``table`` has a row for each metric and method.

    Raises:
        TypeError: something is of the wrong type.
        ValueError: a metric is unknown, a mask or label is missing, or as the metrics raise it.

    Example:
        >>> import camlens, torch
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)).eval()
        >>> found = evaluate(
        ...     [camlens.GradCAM(model, "0"), camlens.Saliency(model)],
        ...     model,
        ...     torch.rand(4, 3, 8, 8),
        ...     metrics=["deletion", "sparseness"],
        ... )
        >>> found.table[["metric", "method"]].values.tolist()[:2]
        [['deletion', 'GradCAM'], ['deletion', 'Saliency']]
    """
    import pandas as pd

    named = named_explainers(explainers)
    chosen = named_metrics(metrics)
    parts, first = [], 0
    total = len(dataset) if hasattr(dataset, "__len__") else 0
    with progress_bar(total, "evaluate", shown=progress if total else False) as advance:
        for batch in _batches(dataset, batch_size):
            images, labels, masks = batch
            parts.append(
                evaluate_images(
                    named,
                    model,
                    images,
                    metrics=chosen,
                    targets=_rows(targets, labels, slice(first, first + len(images))),
                    where=masks,
                    first=first,
                    **options,
                )
            )
            first += len(images)
            advance(1 if isinstance(dataset, DataLoader) else len(images))
    if not parts:
        raise ValueError("the data set has no images: there is nothing to evaluate")
    return Evaluation(pd.concat(parts, ignore_index=True), seed=options.get("seed", 0))


def evaluate_images(
    explainers: Mapping[str, Explainer],
    model: nn.Module,
    images: Tensor,
    *,
    metrics: Mapping[str, Metric],
    targets: Any = None,
    where: Any = None,
    first: int = 0,
    **options: Any,
) -> pd.DataFrame:
    """Compute metrics of several methods for one batch.

    Args:
        explainers: by name.
        model: theirs.
        images: (N, C, *size).
        metrics: by name.
        targets: as explainers take them.
        where: the objects, as localization metrics take them; None: there are none.
        first: the first image's index in its data set.
        options: see :class:`MetricOptions`.

    Returns:
        Rows with the columns of :attr:`Evaluation.values`.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    fixed = targets
    shared: dict[str, Mapping[str, Tensor]] = {}
    for method, explainer in explainers.items():
        explanation = explainer(
            images, *options.get("inputs", ()), targets=fixed, **options.get("keywords", {})
        )
        if not callable(targets):
            fixed = explanation.targets  # the same for all methods
        given = {**options, "targets": fixed, "first": first, "progress": False}
        for name, metric in metrics.items():
            asked = dict(given)
            if name in shared:  # the floors do not depend on the method
                asked["floors"] = ()
            parameters = list(inspect.signature(metric).parameters)
            arguments: list[Any] = [explainer if "explainer" in parameters else explanation]
            if "where" in parameters:
                if where is None:
                    raise ValueError(
                        f"{name} needs where the objects are: give a data set of (image, label, "
                        "mask)"
                    )
                arguments.append(where)
            plain = METRICS.get(name) is metric
            if plain and name in ("deletion", "insertion"):
                asked["step"] = _ROWS * images.shape[-1]
            found = metric(model, images, *arguments, **asked)
            shared.setdefault(name, found.floor_values)
            rows += _rows_of(found, name, method, first, explanation.targets)
    for name, floors in shared.items():
        better = next(row["better"] for row in rows if row["metric"] == name)
        for floor, values in floors.items():
            result = MetricResult(metric=name, values=values, better=better)
            rows += _rows_of(result, name, floor, first, explanation.targets, floor=True)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def named_explainers(
    explainers: Explainer | Mapping[str, Explainer] | Sequence[Explainer],
) -> dict[str, Explainer]:
    """Return explainers by name.

    Raises:
        TypeError: one is none.
        ValueError: there is none, two have the same name, or one is of another model.
    """
    if isinstance(explainers, Explainer):
        explainers = [explainers]
    if not isinstance(explainers, Mapping):
        names = [type(one).__name__ for one in explainers]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"expected explainers of different methods, got {twice[0]} twice: give them names, "
                'such as {"layer3": GradCAM(model, "layer3"), ...}'
            )
        explainers = dict(zip(names, explainers, strict=True))
    if not explainers:
        raise ValueError("expected at least one explainer, got none")
    for name, one in explainers.items():
        if not isinstance(one, Explainer):
            raise TypeError(f"expected {name!r} as an explainer, got {type(one).__name__}")
        if one.model is not next(iter(explainers.values())).model:
            raise ValueError("expected explainers of one model, got several models")
    return dict(explainers)


def _rows_of(
    result: MetricResult,
    metric: str,
    method: str,
    first: int,
    targets: Tensor,
    *,
    floor: bool = False,
) -> list[dict[str, Any]]:
    values = result.values.cpu().tolist()
    classes = targets.cpu().tolist()
    # Only curves along the steps are kept: that of random_logit is a table of pairs.
    curve = None if result.curve is None or result.steps is None else result.curve.cpu().numpy()
    steps = None if result.steps is None else result.steps.cpu().numpy()
    return [
        {
            "image": first + n,
            "k": k,
            "target": classes[n][k],
            "method": method,
            "floor": floor,
            "metric": metric,
            "better": result.better,
            "value": value,
            "curve": None if curve is None else curve[n, k],
            "steps": None if curve is None else steps,
        }
        for n, row in enumerate(values)
        for k, value in enumerate(row)
    ]


def _rows(targets: Any, labels: Tensor | None, rows: slice) -> Any:
    if isinstance(targets, str) and targets == "label":
        if labels is None:
            raise ValueError(
                'targets="label" explains each image\'s own class, but the data set has no labels: '
                "use targets=None for the predicted class"
            )
        return labels
    if isinstance(targets, Tensor) and targets.ndim and len(targets) > 1:
        return targets[rows]
    return targets


def _batches(
    dataset: Any, batch_size: int
) -> Iterator[tuple[Tensor, Tensor | None, Tensor | None]]:
    """Yield images, labels and masks, batch by batch."""
    if isinstance(dataset, DataLoader):
        batches: Iterable[Any] = dataset
    elif isinstance(dataset, Tensor):
        batches = dataset.split(batch_size)
    elif hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        batches = DataLoader(dataset, batch_size=batch_size)
    else:
        raise TypeError(
            "expected images as a tensor, a data set with __getitem__ and __len__ or a DataLoader, "
            f"got {type(dataset).__name__}"
        )
    for batch in batches:
        parts = [batch] if isinstance(batch, Tensor) else list(batch)
        if not 1 <= len(parts) <= 3 or not all(isinstance(part, Tensor) for part in parts):
            raise TypeError(
                "expected items as an image, (image, label) or (image, label, mask), got "
                f"{[type(part).__name__ for part in parts]}"
            )
        images, *more = parts
        labels = more[0] if more else None
        masks = more[1].to(images.device) if len(more) > 1 else None
        yield images, labels, masks
