"""Every form of targets, and every way to get it wrong."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from camlens.targets import probabilities, select

LOGITS = torch.tensor([[1.0, 5.0, 2.0], [4.0, 0.0, 3.0]])
MAPS = torch.zeros(1)


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
        ("all", [[0, 1, 2], [0, 1, 2]]),
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
        select(LOGITS, 0).check(torch.tensor([float("inf")]))


@pytest.mark.parametrize("targets", [[0, 1, 2], [[0], [1], [2]], torch.zeros(2, 1, 1).long(), []])
def test_wrong_shapes(targets):
    with pytest.raises((ValueError, TypeError), match="expected targets as"):
        select(LOGITS, targets)


@pytest.mark.parametrize("targets", [0.5, [0.0, 1.0], [True, False], [[0, 1], [2]], object()])
def test_wrong_types(targets):
    with pytest.raises(TypeError, match="expected targets as integers"):
        select(LOGITS, targets)


def test_an_unknown_word():
    with pytest.raises(ValueError, match='expected targets "all"'):
        select(LOGITS, "every")


@pytest.mark.parametrize("output", [(LOGITS,), {"out": LOGITS}, None])
def test_outputs_that_need_a_callable(output):
    with pytest.raises(TypeError, match="say what to explain with a callable"):
        select(output, None)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_probabilities(dtype):
    logits = torch.tensor([[1.0, 5.0, -2.0], [4.0, 0.0, 3.0]], dtype=dtype)
    found = probabilities(logits)
    assert found.dtype == torch.float32
    assert_close(found, logits.float().exp() / logits.float().exp().sum(1, keepdim=True))
    assert_close(probabilities(logits, "sigmoid"), 1 / (1 + (-logits.float()).exp()))
    assert torch.equal(probabilities(logits, "none"), logits.float())
    with pytest.raises(ValueError, match=r"activation out of \('softmax', .*got 'tanh'"):
        probabilities(logits, "tanh")


@pytest.mark.parametrize("value", [-3.0, 0.0, 40.0])
def test_a_single_output_is_no_softmax(value):
    single = torch.full((4, 1), value)
    assert probabilities(single).isnan().all()
    assert probabilities(single, "none").isnan().all()
    assert_close(probabilities(single, "sigmoid"), single.sigmoid())
