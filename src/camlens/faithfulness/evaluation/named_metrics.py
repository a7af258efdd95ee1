"""Metrics by name, and what each has to be given."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..metric.result import MetricResult

#: What is called: a function of :mod:`camlens.faithfulness`, or one with the same parameters.
Metric = Callable[..., MetricResult]

#: Metrics as they are asked for.
Metrics = Sequence[str | Metric] | Mapping[str, str | Metric]

#: How a metric names what it judges.
_JUDGED = ("explanation", "explainer")


def known_metrics() -> dict[str, Metric]:
    """Return the metrics of :mod:`camlens.faithfulness` by name.

    Example:
        >>> known_metrics()["deletion"].__name__
        'deletion'
    """
    package = importlib.import_module("camlens.faithfulness")
    found = ((name, getattr(package, name)) for name in package.__all__)
    return {name: one for name, one in found if inspect.isfunction(one) and judges(one) is not None}


def judges(metric: Metric) -> str | None:
    """Return whether a metric takes an ``"explanation"`` or an ``"explainer"``; None: neither.

    Example:
        >>> from camlens.faithfulness import deletion, sensitivity
        >>> judges(deletion), judges(sensitivity), judges(print)
        ('explanation', 'explainer', None)
    """
    names = list(_parameters(metric))
    judged = names[2] if names[:2] == ["model", "images"] and len(names) > 2 else ""
    return judged if judged in _JUDGED else None


def needs_place(metric: Metric) -> bool:
    """Return whether a metric has to be told where the objects are."""
    place = _parameters(metric).get("where")
    return place is not None and place.default is place.empty


def named_metrics(metrics: Metrics) -> dict[str, Metric]:
    """Return metrics by the names that tables give them.

    Args:
        metrics: names of this package's metrics, functions like them, or a mapping from names of
            your own to either. With options of its own a metric is a ``functools.partial``, which
            keeps the function's name.

    Raises:
        LookupError: there is no metric of a name.
        TypeError: something is no metric.
        ValueError: there is none, or two have one name.

    Example:
        >>> list(named_metrics(["insertion", functools.partial(known_metrics()["road"], noise=0)]))
        ['insertion', 'road']
    """
    if isinstance(metrics, str):
        raise TypeError(f"expected metrics as a list of names or functions, got {metrics!r}")
    if isinstance(metrics, Mapping):
        found = {str(name): _metric(one) for name, one in metrics.items()}
    else:
        pairs = [(_name(one), _metric(one)) for one in metrics]
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(
                f"two metrics are called {twice!r}: give them as a mapping from names of your own, "
                f'such as {{"{twice} 1": ..., "{twice} 2": ...}}'
            )
    if not found:
        raise ValueError('expected at least one metric, such as metrics=["deletion"], got none')
    return found


def _name(metric: str | Metric) -> str:
    if isinstance(metric, functools.partial):
        return _name(metric.func)
    return metric if isinstance(metric, str) else getattr(metric, "__name__", repr(metric))


def _metric(metric: str | Metric) -> Metric:
    if isinstance(metric, str):
        known = known_metrics()
        if metric not in known:
            near = difflib.get_close_matches(metric, known, n=1)
            hint = f": did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
            raise LookupError(f"there is no metric {metric!r}{hint}")
        return known[metric]
    if not callable(metric) or judges(metric) is None:
        raise TypeError(
            "expected a metric by name, or as a function (model, images, explanation, **options) "
            f"or (model, images, explainer, **options), got {metric!r:.80}"
        )
    return metric


def _parameters(metric: Metric) -> Mapping[str, Any]:
    try:
        return inspect.signature(metric).parameters
    except (TypeError, ValueError):  # not everything callable says what it takes
        return {}
