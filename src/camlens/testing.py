"""Conformance checks for your own explainers, in the manner of scikit-learn's check_estimator."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import traceback
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .explainers.base import Explainer
from .explanation import Explanation
from .faithfulness.sanity import planted_pictures as planted
from .faithfulness.sanity.planted_evidence import PlantedEvidence, made, planted_evidence
from .faithfulness.sanity.randomization import randomization

__all__ = ["Check", "Conformance", "ConformanceError", "check_explainer"]

#: Two computations of a map must agree to within this fraction of its largest value.
_AGREE = 1e-3
#: Largest mean rank correlation between maps with the trained and with shuffled weights.
_UNLIKE = 0.6
#: Number of draws of shuffled weights. In single draws Occlusion's correlation was between -0.21
#: and 0.64. The means of ten methods over eight draws were at most 0.43; an edge map has 1.
_DRAWS = 5
#: Largest mean distance in pixels of the heat's maximum from the centre of the evidence.
_OFF = 3.0


@dataclasses.dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: name of the check.
        passed: whether the explainer passed it.
        reason: why it failed; empty if it passed.
    """

    name: str
    passed: bool
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Conformance:
    """The outcomes of all checks of an explainer.

    Attributes:
        explainer: the explainer's repr.
        checks: the outcomes, in the order in which the checks ran.
        expected_failures: names of the checks that were expected to fail.
    """

    explainer: str
    checks: tuple[Check, ...]
    expected_failures: frozenset[str] = frozenset()

    @property
    def passed(self) -> bool:
        """Whether exactly the expected failures failed."""
        return {check.name for check in self.checks if not check.passed} == self.expected_failures

    def __repr__(self) -> str:
        """Return a line for each check."""
        lines = [f"{self.explainer}:"]
        for check in self.checks:
            expected = " (expected)" if check.name in self.expected_failures else ""
            outcome = "passed" if check.passed else f"FAILED{expected}"
            lines.append(f"  {outcome}: {check.name}{f': {check.reason}' * bool(check.reason)}")
        return "\n".join(lines)


class ConformanceError(AssertionError):
    """Raised when a check has an unexpected outcome; ``conformance`` holds all outcomes."""

    def __init__(self, conformance: Conformance) -> None:
        super().__init__(repr(conformance))
        self.conformance = conformance


def check_explainer(
    make: Callable[[nn.Module], Explainer],
    *,
    transformer: bool = False,
    expected_failures: Collection[str] = (),
    raises: bool = True,
) -> Conformance:
    """Check an explainer on a small trained network: its interface, and whether its maps are right.

    * ``"explanation"``: the maps are (N, K), finite and not negative, their scores are the model's,
      and the heatmaps have the images' size.
    * ``"batch"``: a batch gives the same maps as its single images.
    * ``"targets"``: K targets give the same maps as K calls.
    * ``"repeated"``: a second call gives the same maps.
    * ``"model"``: parameters, buffers, gradients, modes, hooks, attributes, random states and the
      images are unchanged.
    * ``"planted evidence"``: in at least 95% of pictures whose evidence is known, the heat there is
      at least three times as dense as by chance, and no other place is hotter.
    * ``"place"``: the mean offset of the hottest pixel from the evidence is at most 3 of 48 pixels.
    * ``"randomization"``: with shuffled weights the map no longer shows the evidence and differs
      from the map before (:func:`camlens.faithfulness.randomization`).

    Args:
        make: creates an explainer of a given model: an explainer class or, to set options,
            ``lambda model: camlens.RISE(model, masks=500)``. Not an explainer itself, which belongs
            to one model: the checks explain several networks.
        transformer: whether to use a vision transformer instead of a convolutional network; needs
            timm.
        expected_failures: names of checks that the method is known to fail. Passing one of them is
            also an error.
        raises: whether unexpected outcomes raise an error.

    Returns:
        All outcomes.

    Raises:
        ConformanceError: a check had an unexpected outcome.
        TypeError: ``make`` does not return an explainer.
        ValueError: an expected failure is not the name of a check.

    Example:
        >>> import camlens
        >>> check_explainer(camlens.GradCAM).passed
        True
    """
    unknown = sorted(set(expected_failures) - set(_CHECKS))
    if unknown:
        raise ValueError(f"expected names of checks from {tuple(_CHECKS)}, got {unknown}")
    subject = _Subject(make, transformer)
    checks = tuple(_outcome(name, check, subject) for name, check in _CHECKS.items())
    conformance = Conformance(subject.name, checks, frozenset(expected_failures))
    if raises and not conformance.passed:
        raise ConformanceError(conformance)
    return conformance


class _Subject:
    """An explainer of the trained network, and some pictures to explain."""

    def __init__(self, make: Callable[[nn.Module], Explainer], transformer: bool) -> None:
        self.make, self.transformer = make, transformer
        trained = planted.trained_transformer() if transformer else planted.trained()
        self.model = copy.deepcopy(trained)  # an explainer that changes it affects no other check
        self.explainer = made(make, self.model)
        self.name = repr(self.explainer)
        step = planted.PATCH if transformer else 4
        self.images, self.classes, _ = planted.pictures(3, seed=2, step=step)
        self._evidence: PlantedEvidence | None = None

    def explain(self, images: Tensor | None = None, **options: Any) -> Explanation:
        given = self.images if images is None else images
        return self.explainer(given, **{"targets": [[0, 2]], **options})

    @property
    def evidence(self) -> PlantedEvidence:
        if self._evidence is None:
            self._evidence = planted_evidence(self.make, transformer=self.transformer)
        return self._evidence


def _outcome(name: str, check: Callable[[_Subject], str | None], subject: _Subject) -> Check:
    try:
        reason = check(subject)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} ({where.filename}, line {where.lineno})"
        return Check(name, False, text)
    return Check(name, reason is None, reason or "")


def _well_formed(subject: _Subject) -> str | None:
    explanation = subject.explain()
    shape = tuple(explanation.raw.shape)
    if shape[:2] != (3, 2) or explanation.heatmaps.shape != (3, 2, planted.SIZE, planted.SIZE):
        return f"expected maps of 3 images and 2 targets, got {shape}"
    if not explanation.raw.isfinite().all():
        return "maps hold NaN or infinity"
    if (explanation.raw < 0).any():
        return f"maps are negative, down to {explanation.raw.min().item():.3g}"
    with torch.no_grad():
        scores = subject.model(subject.images)[:, [0, 2]]
    return _differs("scores of the targets", explanation.scores, scores)


def _batch(subject: _Subject) -> str | None:
    whole = subject.explain().raw
    single = [subject.explain(subject.images[n : n + 1]).raw for n in range(3)]
    return _differs("maps of single images", torch.cat(single), whole)


def _targets(subject: _Subject) -> str | None:
    whole = subject.explain().raw
    parts = [subject.explain(targets=target).raw for target in (0, 2)]
    return _differs("maps of single targets", torch.cat(parts, dim=1), whole)


def _repeated(subject: _Subject) -> str | None:
    return _differs("maps of a second call", subject.explain().raw, subject.explain().raw)


def _model(subject: _Subject) -> str | None:
    model, images = subject.model, subject.images.clone()
    for parameter in model.parameters():  # an existing gradient must not be added to
        parameter.grad = torch.ones_like(parameter)
    drawn = np.random.get_state()  # noqa: NPY002  a method may use it
    try:
        with torch.random.fork_rng(devices=()):
            # A seed that no method uses: one that reseeds leaves the same state after each call.
            torch.manual_seed(20_000_003)
            np.random.seed(20_000_003)  # noqa: NPY002
            before = _state(model)
            subject.explain(images)
            after = _state(model)
    finally:
        np.random.set_state(drawn)  # noqa: NPY002
        model.zero_grad()
    for name in {**before, **after}:
        if name not in before or name not in after:
            return f"{name} has {'appeared' if name in after else 'disappeared'}"
        one, other = before[name], after[name]
        if not (torch.equal(one, other) if isinstance(one, Tensor) else one == other):
            return f"{name} has changed"
    if not torch.equal(images, subject.images):
        return "the images have changed"
    return None


def _state(model: nn.Module) -> dict[str, Any]:
    """Return by name everything that a call must leave unchanged.

    Python's random state is omitted, as beartype draws from it to pick items of a list to check.
    """
    found: dict[str, Any] = {
        "torch's random state": torch.get_rng_state(),
        "numpy's random state": pickle.dumps(np.random.get_state()),  # noqa: NPY002
        "the gradient mode": torch.is_grad_enabled(),
        "the stack of function modes": torch._C._len_torch_function_stack(),
    }
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        found[f"the tensor {name}"] = tensor.detach().clone()
        found[f"the identity of {name}"] = id(tensor)
        gradient = tensor.grad
        found[f"the gradient of {name}"] = None if gradient is None else gradient.clone()
        found[f"requires_grad of {name}"] = tensor.requires_grad
    for name, module in model.named_modules():
        where = f"of {name or 'the model'}"
        for kind in [key for key in vars(module) if key.endswith("_hooks")]:
            found[f"the number of {kind} {where}"] = len(getattr(module, kind))
        found[f"the training mode {where}"] = module.training
        found[f"the list of attributes {where}"] = sorted(vars(module))
    return found


def _planted(subject: _Subject) -> str | None:
    evidence = subject.evidence
    if evidence.found:
        return None
    return (
        f"the map shows the evidence in {evidence.share:.0%} of the pictures, with a median "
        f"density of {evidence.density.median().item():.2f}; 1 is chance"
    )


def _place(subject: _Subject) -> str | None:
    down, right = subject.evidence.offset.mean(dim=0).tolist()
    if max(abs(down), abs(right)) <= _OFF:
        return None
    return (
        f"the heat's maximum is off by {down:+.1f} and {right:+.1f} pixels (down, right) on average"
    )


def _randomization(subject: _Subject) -> str | None:
    evidence = subject.evidence
    if not evidence.destroyed:
        return (
            f"with shuffled weights the median density is {evidence.shuffled.median().item():.2f}, "
            f"with trained weights {evidence.density.median().item():.2f}"
        )
    draws = [
        randomization(
            subject.model,
            subject.images,
            subject.explainer,
            steps=1,
            floors=(),
            targets=subject.classes,
            seed=seed,
        ).values
        for seed in range(_DRAWS)
    ]
    alike = torch.stack(draws).nanmean().item()
    if alike > _UNLIKE:  # false for NaN: a map without evidence counts as different
        return f"the rank correlation of maps with trained and shuffled weights is {alike:.2f}"
    return None


def _differs(what: str, actual: Tensor, expected: Tensor) -> str | None:
    if actual.shape != expected.shape:
        return f"{what}: expected {tuple(expected.shape)}, got {tuple(actual.shape)}"
    gap = (actual - expected).abs().amax().item()
    largest = expected.abs().amax().item()
    if gap <= _AGREE * largest:
        return None
    return f"{what} differ by {gap:.3g} where the largest value is {largest:.3g}"


_CHECKS: dict[str, Callable[[_Subject], str | None]] = {
    "explanation": _well_formed,
    "batch": _batch,
    "targets": _targets,
    "repeated": _repeated,
    "model": _model,
    "planted evidence": _planted,
    "place": _place,
    "randomization": _randomization,
}
