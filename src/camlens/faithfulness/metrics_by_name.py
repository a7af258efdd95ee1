"""The metrics by name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

from .insertion_deletion import deletion, insertion
from .localization import energy_pointing_game, intersection_over_union, pointing_game
from .map_shape import completeness, complexity, sparseness
from .masked_images import average_drop, average_gain, average_increase
from .metric_result import MetricResult
from .random_logit import random_logit
from .randomization import randomization
from .road import road
from .stability import sensitivity
from .subsets import infidelity, mu_fidelity, saco
from .sufficiency import sufficiency

Metric = Callable[..., MetricResult]

#: Metrics that :func:`evaluate` knows by name.
METRICS: dict[str, Metric] = {
    metric.__name__: metric
    for metric in (
        deletion,
        insertion,
        road,
        average_drop,
        average_increase,
        average_gain,
        sufficiency,
        mu_fidelity,
        infidelity,
        saco,
        pointing_game,
        energy_pointing_game,
        intersection_over_union,
        sensitivity,
        randomization,
        random_logit,
        sparseness,
        complexity,
        completeness,
    )
}
#: What :func:`evaluate` computes if it is not told otherwise.
DEFAULT_METRICS = ("deletion", "insertion", "road", "mu_fidelity", "sufficiency", "randomization")


def named_metrics(metrics: Sequence[str | Metric] | Mapping[str, Metric]) -> dict[str, Metric]:
    """Return metrics by name.

    Raises:
        ValueError: there is none, or one is unknown.
    """
    found: dict[str, Metric] = {}
    if isinstance(metrics, str):
        metrics = [metrics]
    if isinstance(metrics, Mapping):
        found |= metrics
    else:
        for metric in metrics:
            if isinstance(metric, str):
                if metric not in METRICS:
                    raise ValueError(f"expected metrics out of {tuple(METRICS)}, got {metric!r}")
                found[metric] = METRICS[metric]
            else:
                bare = metric.func if isinstance(metric, functools.partial) else metric
                found[bare.__name__] = metric
    if not found:
        raise ValueError("expected at least one metric, got none")
    return found
