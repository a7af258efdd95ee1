"""Every form of targets, and every way to get it wrong."""

import collections
import dataclasses
import types
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from camlens.targets import Top, as_classes, probabilities, scores_in, select, several, top

LOGITS = torch.tensor([[1.0, 5.0, 2.0], [4.0, 0.0, 3.0]])
MAPS = torch.zeros(1, 1, 1)


@pytest.mark.parametrize(
    ("targets", "classes"),
    [
        (None, [[1], [0]]),
        (2, [[2], [2]]),
        (torch.tensor(2), [[2], [2]]),
        ([0, 2], [[0], [2]]),
        (torch.tensor([0, 2], dtype=torch.uint8), [[0], [2]]),
        (np.array([[0, 1], [2, 2]]), [[0, 1], [2, 2]]),
        ([[0, 1], [2, 2]], [[0, 1], [2, 2]]),
        ([[0, 2]], [[0, 2], [0, 2]]),
        (torch.tensor([[1]]), [[1], [1]]),
        (np.int64(2), [[2], [2]]),
        ("all", [[0, 1, 2], [0, 1, 2]]),
        (top(1), [[1], [0]]),
        (top(2), [[1, 2], [0, 2]]),
        (top(3), [[1, 2, 0], [0, 2, 1]]),
    ],
)
def test_forms(targets, classes):
    selection = select(LOGITS, targets)
    selection.check(MAPS)
    assert selection.classes.tolist() == classes
    assert_close(selection.scores, LOGITS.gather(1, torch.tensor(classes)))


def test_a_callable_makes_scores_of_no_class():
    output = {"logits": LOGITS, "aux": None}
    one = select(output, lambda out: out["logits"][:, 0])
    assert one.scores.tolist() == [[1], [4]]
    assert one.classes.tolist() == [[-1], [-1]]
    two = select((LOGITS,), lambda out: out[0].square()[:, :2])
    two.check(MAPS)
    assert two.scores.tolist() == [[1, 25], [16, 0]]


@pytest.mark.parametrize("targets", [3, -1, [0, 7], [[0, 1], [2, -2]]])
def test_out_of_range(targets):
    with pytest.raises(ValueError, match=r"expected classes 0 to 2, got \[-?\d\]"):
        select(LOGITS, targets).check(MAPS)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_not_finite(bad):
    logits = LOGITS.clone()
    logits[1, 2] = bad
    select(logits, 0).check(MAPS)  # another class is fine
    with pytest.raises(ValueError, match=r"images \[1\] are not finite"):
        select(logits, 2).check(MAPS)


def test_maps_that_are_not_finite():
    with pytest.raises(ValueError, match="gradients or the layer's activations are not"):
        select(LOGITS, 0).check(MAPS + float("inf"))


@pytest.mark.parametrize("targets", [[0, 1, 2], [[0], [1], [2]], torch.zeros(2, 1, 1).long(), []])
def test_wrong_shapes(targets):
    with pytest.raises((ValueError, TypeError), match=r"expected targets as|at least one class"):
        select(LOGITS, targets)


@pytest.mark.parametrize("targets", [0.5, [0.0, 1.0], [True, False], [[0, 1], [2]], object()])
def test_wrong_types(targets):
    with pytest.raises(TypeError, match="expected targets as integers"):
        select(LOGITS, targets)


def test_an_unknown_word():
    with pytest.raises(ValueError, match='expected targets "all"'):
        select(LOGITS, "every")


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_same_classes_for_every_image(n, k):
    logits = torch.randn(n, 7)
    chosen = list(range(3, 3 + k))
    selection = select(logits, [chosen])
    assert selection.classes.tolist() == [chosen] * n
    assert_close(selection.scores, logits[:, chosen])
    assert as_classes([chosen], n).tolist() == [chosen] * n


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("k", [1, 3, 7])
def test_the_highest_classes(n, k):
    logits = torch.randn(n, 7)
    selection = select(logits, top(k))
    assert_close(selection.scores, logits.sort(dim=1, descending=True).values[:, :k])


@pytest.mark.parametrize("count", [0, -1, 1.5, "all", None])
def test_top_of_no_class(count):
    with pytest.raises(ValueError, match="a count of at least 1"):
        top(count)


def test_several_targets_side_by_side():
    logits = torch.randn(3, 7)
    given = torch.tensor([[0, 6], [1, 5], [2, 4]])
    selection = select(logits, several(None, given, 3, top(2), "all", [6, 5, 4]))
    best = logits.sort(dim=1, descending=True).indices
    columns = [best[:, :1], given, torch.full((3, 1), 3), best[:, :2], torch.arange(7).expand(3, 7)]
    expected = torch.cat([*columns, torch.tensor([[6], [5], [4]])], dim=1)
    assert torch.equal(selection.classes, expected)
    assert_close(selection.scores, logits.gather(1, expected))


@pytest.mark.parametrize("part", [lambda out: out[:, 0], several(1)])
def test_several_targets_that_are_no_classes(part):
    with pytest.raises(TypeError, match="parts of several"):
        several(None, part)
    with pytest.raises(ValueError, match="at least one target"):
        several()


def test_top_of_more_classes_than_there_are():
    assert top(4) == Top(4)
    with pytest.raises(ValueError, match=r"at most 3 classes, got top\(4\)"):
        select(LOGITS, top(4))


@dataclasses.dataclass(slots=True)
class Slotted:
    logits: torch.Tensor


@dataclasses.dataclass
class Plain:
    logits: torch.Tensor


class Named(NamedTuple):
    logits: torch.Tensor
    features: torch.Tensor | None = None


class ModelOutput(collections.OrderedDict):
    """As libraries of transformers write it: a mapping whose items are attributes too."""

    def __getattr__(self, name):
        return self[name]


FEATURES = torch.zeros(2, 7)
MAP = torch.zeros(2, 3, 4, 4)


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        Slotted(LOGITS),
        Plain(LOGITS),
        Named(LOGITS, FEATURES),
        types.SimpleNamespace(logits=LOGITS, loss=None),
        ModelOutput(loss=None, logits=LOGITS, hidden=FEATURES),
        {"logits": LOGITS, "hidden": FEATURES},
        {"out": LOGITS},
        {"scores": LOGITS, "map": MAP, "name": "text", "ids": torch.zeros(2, 3).long()},
        (LOGITS,),
        [LOGITS, MAP, None],
        (torch.tensor(0.5), LOGITS),
    ],
    ids=lambda output: type(output).__name__,
)
@pytest.mark.parametrize("targets", [None, 1, [[0, 2]], "all", top(2)])
def test_outputs_that_hold_one_tensor_of_scores(output, targets):
    assert scores_in(output) is LOGITS
    selection, expected = select(output, targets), select(LOGITS, targets)
    assert selection.classes.tolist() == expected.classes.tolist()
    assert_close(selection.scores, expected.scores)
    assert selection.logits is LOGITS


@pytest.mark.parametrize(
    "output",
    [
        None,
        "text",
        types.SimpleNamespace(scores=LOGITS),
        (LOGITS, FEATURES),
        {"a": LOGITS, "b": FEATURES},
        {"logits": MAP},
        {},
        [],
        {"ids": torch.zeros(2, 3).long()},
    ],
)
def test_outputs_that_need_a_callable(output):
    assert scores_in(output) is None
    with pytest.raises(TypeError, match="say what to explain with a callable"):
        select(output, None)
    assert select(output, lambda _: LOGITS[:, 0]).logits is None


def test_a_segmentation_map_needs_a_callable():
    with pytest.raises(ValueError, match=r"returned \(2, 3, 4, 4\).*mean\(dim=\(-2, -1\)\)"):
        select(torch.rand(2, 3, 4, 4), 1)


def test_integer_outputs():
    with pytest.raises(TypeError, match=r"torch\.int64, expected floating-point"):
        select(torch.zeros(2, 3).long(), 1)


@pytest.mark.parametrize("made", ["text", torch.zeros(2).long()])
def test_a_callable_that_makes_no_scores(made):
    with pytest.raises(TypeError, match="the targets callable returned"):
        select(LOGITS, lambda _: made)


def test_a_callable_that_makes_a_wrong_shape():
    with pytest.raises(ValueError, match=r"returned \(2, 3, 1\), expected \(N,\) or \(N, K\)"):
        select(LOGITS, lambda out: out[..., None])


@pytest.mark.parametrize("value", [1e39, -1e300])
def test_float64_scores_beyond_float32(value):
    logits = torch.tensor([[value, 1.0]], dtype=torch.float64)
    select(logits, 1).check(MAPS.double())
    with pytest.raises(
        ValueError, match=r"float64 scores or their maps exceed .*out\[:, 3\] / 1e300"
    ):
        select(logits, 0).check(MAPS.double())
    with pytest.raises(ValueError, match="exceed the range of float32"):
        select(logits, 1).check(MAPS.double() + value)


def test_float64_maps_below_float32():
    logits = torch.ones(1, 2, dtype=torch.float64)
    select(logits, 0).check(torch.tensor([[[0.0, 1e-60, 1.0]]], dtype=torch.float64))
    with pytest.raises(ValueError, match=r"too small for float32.*\* 1e"):
        select(logits, 0).check(torch.tensor([[[0.0, 1e-60]]], dtype=torch.float64))


def test_probabilities():
    assert_close(probabilities(LOGITS), LOGITS.exp() / LOGITS.exp().sum(1, keepdim=True))
    assert_close(probabilities(LOGITS, "sigmoid"), 1 / (1 + (-LOGITS).exp()))
    assert_close(probabilities(LOGITS, "none"), LOGITS)
    assert probabilities(LOGITS.half(), "sigmoid").dtype == torch.float32
    with pytest.raises(ValueError, match="got 'tanh'"):
        probabilities(LOGITS, "tanh")


@pytest.mark.parametrize("n", [1, 3])
def test_a_single_output_has_no_softmax(n):
    logits = torch.randn(n, 1)
    assert probabilities(logits).isnan().all()
    assert_close(probabilities(logits, "sigmoid"), logits.sigmoid())
    assert_close(probabilities(logits.sigmoid(), "none"), logits.sigmoid())


def test_logits_are_what_the_model_gave_though_a_callable_writes_to_them():
    def overwrite(outputs):
        outputs[:, 0] = -9
        return outputs.amax(1)

    assert torch.equal(select(LOGITS.clone(), overwrite).logits, LOGITS)
