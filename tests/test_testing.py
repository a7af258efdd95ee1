"""The conformance suite names the fault of each deliberately broken explainer, and no other."""

import numpy as np
import pytest
import torch

import camlens
from camlens.testing import Conformance, ConformanceError, check_explainer

pytestmark = pytest.mark.slow


class Good(camlens.LayerAttribution):
    def maps(self, activations, gradients):
        weights = gradients.mean(dim=(3, 4), keepdim=True)
        return (weights * activations.unsqueeze(1)).sum(dim=2).relu()


class Negative(camlens.LayerAttribution):
    def maps(self, activations, gradients):
        return (gradients.mean(dim=(3, 4), keepdim=True) * activations.unsqueeze(1)).sum(dim=2)


class AcrossTheBatch(Good):
    def maps(self, activations, gradients):
        return super().maps(activations - activations.mean(dim=0), gradients)


class AcrossTheTargets(Good):
    def maps(self, activations, gradients):
        maps = super().maps(activations, gradients)
        return maps / maps.amax(dim=1, keepdim=True).clamp(min=1e-9)


class Mirrored(Good):
    def maps(self, activations, gradients):
        return super().maps(activations, gradients).flip(3)


class Moved(Good):
    def maps(self, activations, gradients):
        return super().maps(activations, gradients).roll(1, dims=3)


class Careless(camlens.Explainer):
    def attribute(self, probe):
        images = probe.images.clone().requires_grad_()
        scores = self.model(images).gather(1, probe.unchanged().classes)
        maps = []
        for k in range(scores.shape[1]):
            scores[:, k].sum().backward(retain_graph=True)
            maps.append(images.grad.abs().amax(dim=1))
            images.grad = None
        return camlens.Attribution(raw=torch.stack(maps, dim=1))


class LeavesAHook(Good):
    def maps(self, activations, gradients):
        self.model.head.register_forward_hook(lambda *_: None)
        return super().maps(activations, gradients)


class Replaces(Good):
    """Puts an equal copy in the place of a parameter, which the user's optimizer does not know."""

    def maps(self, activations, gradients):
        self.model.head.weight = torch.nn.Parameter(self.model.head.weight.detach().clone())
        return super().maps(activations, gradients)


class Seeds(Good):
    def maps(self, activations, gradients):
        np.random.seed(0)  # noqa: NPY002
        return super().maps(activations, gradients)


class SeedsTorch(Good):
    def maps(self, activations, gradients):
        torch.manual_seed(0)
        return super().maps(activations, gradients)


class OfTheImage(camlens.Explainer):
    def attribute(self, probe):
        k = probe.unchanged().scores.shape[1]
        edges = camlens.faithfulness.FLOORS["edges"](probe.images, torch.arange(len(probe.images)))
        return camlens.Attribution(raw=edges.expand(-1, k, -1, -1).contiguous())


class Noisy(camlens.Explainer):
    def attribute(self, probe):
        n, k = probe.unchanged().scores.shape
        return camlens.Attribution(raw=torch.rand(n, k, *probe.size))


class Failing(camlens.Explainer):
    def attribute(self, probe):
        raise ZeroDivisionError("of my own")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "faults"),
    [
        (Good, set()),
        (Negative, {"explanation"}),
        (AcrossTheBatch, {"batch"}),
        (AcrossTheTargets, {"targets"}),
        (Mirrored, {"planted evidence"}),
        (Moved, {"place"}),
        (Careless, {"model"}),
        (LeavesAHook, {"model"}),
        (Replaces, {"model"}),
        (Seeds, {"model"}),
        (SeedsTorch, {"model"}),
        # Edges are dense on a patterned patch: only shuffled weights tell that they know nothing.
        (OfTheImage, {"randomization"}),
        (Noisy, {"batch", "targets", "repeated", "model", "planted evidence"}),
    ],
)
def test_each_fault_is_named(make, faults):
    found = check_explainer(make, raises=False)
    failed = {check.name for check in found.checks if not check.passed}
    assert faults <= failed, found
    # A map that is wrong in one way is mostly wrong in what follows from it, too.
    follows = {"planted evidence", "place", "randomization"} if faults else set()
    assert failed <= faults | follows, found
    assert found.passed == (not failed)


@pytest.mark.slow
def test_failures_raise_unless_they_are_the_expected_ones():
    with pytest.raises(ConformanceError, match="FAILED: randomization") as caught:
        check_explainer(OfTheImage)
    assert isinstance(caught.value.conformance, Conformance)
    failed = {check.name for check in caught.value.conformance.checks if not check.passed}
    assert check_explainer(OfTheImage, expected_failures=failed).passed
    with pytest.raises(ConformanceError):  # it passes what it was expected to fail
        check_explainer(Good, expected_failures=["planted evidence"])


@pytest.mark.slow
def test_the_check_itself_leaves_random_states_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    check_explainer(Good)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


@pytest.mark.slow
def test_an_error_of_the_method_is_a_reason():
    found = check_explainer(Failing, raises=False)
    assert not any(check.passed for check in found.checks)
    assert "ZeroDivisionError: of my own" in found.checks[0].reason


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            camlens.GradCAM(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1)).eval(), "0"),
            r"pass the class, GradCAM, or, to set options, lambda model: GradCAM\(model",
        ),
        (lambda model: model, "a function that creates an explainer"),
        (3, "a function that creates an explainer"),
    ],
)
def test_what_makes_no_explainer(make, words):
    with pytest.raises(TypeError, match=words):
        check_explainer(make)


def test_unknown_expected_failures():
    with pytest.raises(ValueError, match="planted evidence"):
        check_explainer(camlens.GradCAM, expected_failures=["planted"])


def test_a_method_that_changes_the_network_spoils_no_later_check():
    class LeavesTraining(camlens.Explainer):
        def __init__(self, model):
            super().__init__(model)
            self.inner = camlens.Saliency(model)

        def attribute(self, probe):
            found = self.inner.attribute(probe)
            self.model.train()
            return found

    assert not check_explainer(LeavesTraining, raises=False).passed
    assert check_explainer(camlens.Saliency, raises=False).passed
