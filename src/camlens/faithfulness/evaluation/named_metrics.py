"""Look up metrics by name, and the arguments that each needs."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..metric.result import MetricResult

#: A metric function of :mod:`camlens.faithfulness`, or one with the same parameters.
Metric = Callable[..., MetricResult]

#: Metrics as a user gives them.
Metrics = Sequence[str | Metric] | Mapping[str, str | Metric]

#: Names of the parameter that a metric measures.
_JUDGED = ("explanation", "explainer")


def known_metrics() -> dict[str, Metric]:
    """Return the metrics of :mod:`camlens.faithfulness` by name.

    Example:
        >>> known_metrics()["deletion"].__name__
        'deletion'
    """
    package = importlib.import_module("camlens.faithfulness")
    members = ((name, getattr(package, name)) for name in package.__all__)
    return {
        name: member
        for name, member in members
        if inspect.isfunction(member) and judges(member) is not None
    }


def judges(metric: Metric) -> str | None:
    """Return what a metric takes: an ``"explanation"``, an ``"explainer"``, or neither (None).

    Example:
        >>> from camlens.faithfulness import deletion, sensitivity
        >>> judges(deletion), judges(sensitivity), judges(print)
        ('explanation', 'explainer', None)
    """
    names = list(_parameters(metric))
    judged = names[2] if names[:2] == ["model", "images"] and len(names) > 2 else ""
    return judged if judged in _JUDGED else None


def needs_place(metric: Metric) -> bool:
    """Return whether a metric requires the locations of the objects."""
    place = _parameters(metric).get("where")
    return place is not None and place.default is place.empty


def named_metrics(metrics: Metrics) -> dict[str, Metric]:
    """Return metrics by their names in the tables.

    Args:
        metrics: names of camlens' metrics, functions like them, or a mapping from your own names to
            either. A ``functools.partial`` sets a metric's options and keeps the function's name.

    Raises:
        LookupError: no metric has a given name.
        TypeError: a value is not a metric.
        ValueError: no metrics are given, or two have the same name.

    Example:
        >>> list(named_metrics(["insertion", functools.partial(known_metrics()["road"], noise=0)]))
        ['insertion', 'road']
    """
    if isinstance(metrics, str):
        raise TypeError(f"expected metrics as a list of names or functions, got {metrics!r}")
    if isinstance(metrics, Mapping):
        by_name = {str(name): _metric(metric) for name, metric in metrics.items()}
    else:
        pairs = [(_name(metric), _metric(metric)) for metric in metrics]
        by_name = dict(pairs)
        if len(by_name) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(
                f"two metrics are named {twice!r}: pass a mapping with distinct names as keys, "
                f'such as {{"{twice} 1": ..., "{twice} 2": ...}}'
            )
    if not by_name:
        raise ValueError('expected at least one metric, such as metrics=["deletion"], got none')
    return by_name


def _name(metric: str | Metric) -> str:
    if isinstance(metric, functools.partial):
        return _name(metric.func)
    return metric if isinstance(metric, str) else getattr(metric, "__name__", repr(metric))


def _metric(metric: str | Metric) -> Metric:
    if isinstance(metric, str):
        known = known_metrics()
        if metric not in known:
            near = difflib.get_close_matches(metric, known, n=1)
            hint = f": did you mean {near[0]!r}?" if near else f": choose from {', '.join(known)}"
            raise LookupError(f"unknown metric {metric!r}{hint}")
        return known[metric]
    if not callable(metric) or judges(metric) is None:
        raise TypeError(
            "expected the name of a metric, or a function (model, images, explanation, **options) "
            f"or (model, images, explainer, **options), got {metric!r:.80}"
        )
    return metric


def _parameters(metric: Metric) -> Mapping[str, Any]:
    try:
        return inspect.signature(metric).parameters
    except (TypeError, ValueError):  # some callables have no signature
        return {}
