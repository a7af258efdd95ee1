"""What no map, image or option can say is an error, or a documented value, of every metric."""

import pytest
import torch

import camlens
from camlens import faithfulness

from . import metrics

#: Metrics by what a map without any order is to them.
BY_ORDER = ["deletion", "insertion", "road", "sufficiency", "intersection_over_union"]
MASKED = ["average_drop", "average_increase", "average_gain"]
SUBSETS = ["mu_fidelity", "infidelity", "saco"]
PLACES = ["pointing_game", "energy_pointing_game", "intersection_over_union"]
SHAPES = ["sparseness", "complexity"]
OF_MAPS = [*BY_ORDER, *MASKED, *SUBSETS, *PLACES[:2], *SHAPES]
OF_EXPLAINERS = ["sensitivity", "randomization", "adcc"]
BOXES = torch.tensor([[2.0, 2, 8, 7]])


def judged(name, model, images, maps, **options):
    place = [BOXES.expand(len(images), 4)] if name in PLACES else []
    return getattr(faithfulness, name)(model, images, maps, *place, **options)


@pytest.mark.parametrize("name", OF_MAPS)
@pytest.mark.parametrize(
    ("maps", "error", "words"),
    [
        (torch.rand(2, 1, 6, 6), ValueError, "resize"),
        (torch.rand(2, 1, 10, 12), ValueError, r"size \(12, 10\), got \(10, 12\)"),
        (torch.rand(3, 1, 12, 10), ValueError, "2 images"),
        (torch.rand(2, 12, 10), ValueError, r"\(N, K, \*size\)"),
        (torch.full((2, 1, 12, 10), torch.nan), ValueError, r"images \[0, 1\] contain NaN"),
        (torch.ones(2, 1, 12, 10, dtype=torch.int64), TypeError, "floating point"),
        ([[0.0]], TypeError, "got list"),
    ],
)
def test_maps_that_do_not_fit(name, maps, error, words):
    with pytest.raises(error, match=words):
        judged(name, metrics.convolutional(), torch.rand(2, 3, 12, 10), maps)


@pytest.mark.parametrize("name", OF_MAPS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_images_that_are_not_finite(name, value):
    images = metrics.images()
    images[1, 0, 3, 4] = value
    bounded = torch.nn.Sequential(torch.nn.Tanh(), metrics.convolutional()).eval()
    with pytest.raises(ValueError, match=r"images \[1\] contain NaN or infinity"):
        judged(name, bounded, images, metrics.maps())


@pytest.mark.slow
@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("name", OF_MAPS)
def test_constant_maps(name, value):
    model, images = metrics.convolutional(), metrics.images()
    maps = torch.full((3, 1, 12, 12), value)
    found = judged(name, model, images, maps).values
    if name in BY_ORDER:  # pixels of equal value are in random order
        other = judged(name, model, images, maps, seed=1).values
        assert found.isfinite().all()
        assert not torch.equal(found, other)
    elif name in ("mu_fidelity", "saco") or (name in SHAPES and value == 0):
        assert found.isnan().all()
    elif name == "infidelity":
        assert (found > 0).all()
    else:
        expected = {
            "average_drop": None if value == 0 else 0.0,
            "average_increase": None if value == 0 else 0.0,
            "average_gain": None if value == 0 else 0.0,
            "pointing_game": 1.0,  # every pixel of 12 is within 15 of the box
            "energy_pointing_game": 30 / 144,
            "sparseness": 0.0,
            "complexity": torch.tensor(144.0).log().item(),
        }[name]
        assert found.isfinite().all()
        if expected is not None:
            torch.testing.assert_close(
                found, torch.full_like(found, expected), atol=1e-5, rtol=1e-5
            )


@pytest.mark.parametrize("name", OF_EXPLAINERS)
def test_maps_without_evidence_of_explainers(name):
    class Nothing(camlens.Explainer):
        def attribute(self, probe):
            raw = probe.images.new_zeros(len(probe.images), 1, *probe.size)
            return camlens.Attribution(raw=raw)

    model, images = metrics.convolutional(), metrics.images()
    found = getattr(faithfulness, name)(model, images, Nothing(model))
    assert found.values.isnan().all()
    assert "nan" in repr(found)


@pytest.mark.parametrize("name", OF_MAPS)
def test_one_image_has_the_value_it_has_among_others(name):
    model, images, maps = metrics.convolutional(), metrics.images(), metrics.maps()
    whole = judged(name, model, images, maps)
    one = judged(name, model, images[2:], maps[2:], first=2)
    torch.testing.assert_close(one.values, whole.values[2:], atol=1e-5, rtol=1e-4)
    assert one.interval == pytest.approx((torch.nan, torch.nan), nan_ok=True)
    assert not one.above_floor.clear


@pytest.mark.parametrize("name", [*BY_ORDER[:4], *MASKED, *SUBSETS])
def test_a_model_of_one_class(name):
    model, images, maps = metrics.linear(144), metrics.images(2, 12, 1) / 10, metrics.maps(2)
    with pytest.raises(ValueError, match='activation="sigmoid"'):
        judged(name, model, images, maps)
    assert judged(name, model, images, maps, activation="sigmoid").values.isfinite().any()


@pytest.mark.parametrize("name", PLACES)
def test_boxes_without_a_pixel_and_outside_have_no_value(name):
    metric = getattr(faithfulness, name)
    boxes = torch.tensor([[3.0, 3, 3, 3], [20, 20, 30, 30], [0, 0, 4, 4]])
    found = metric(None, metrics.images(), metrics.maps(), boxes)
    assert found.values.isfinite().flatten().tolist() == [False, False, True]
    for wrong in ([5.0, 5, 2, 2], [torch.nan] * 4):
        with pytest.raises(ValueError, match="box"):
            metric(None, metrics.images(), metrics.maps(), torch.tensor([wrong] * 3))


@pytest.mark.parametrize("floors", [None, "random", ("noise",), iter(["random"])])
def test_floors_are_names_in_a_collection(floors):
    """A generator would be read once, and be empty where the floors are computed."""
    with pytest.raises(ValueError, match="expected floors from"):
        faithfulness.sparseness(None, metrics.images(), metrics.maps(), floors=floors)
    model = metrics.convolutional()
    with pytest.raises(ValueError, match="expected floors from"):
        faithfulness.evaluate(camlens.Saliency(model), model, metrics.images(), floors=floors)


def test_an_explanation_is_not_judged_by_other_targets():
    model, images = metrics.convolutional(), metrics.images()
    of_two = camlens.Saliency(model)(images, targets=2)
    with pytest.raises(ValueError, match=r"explains the classes \[2\] instead of \[1\]"):
        faithfulness.deletion(model, images, of_two, targets=1)
    same = faithfulness.deletion(model, images, of_two, targets=2, floors=())
    assert torch.equal(same.values, faithfulness.deletion(model, images, of_two, floors=()).values)
    assert faithfulness.deletion(model, images, of_two.heatmaps, targets=1, floors=()).mean > 0
    of_sum = camlens.Saliency(model)(images, targets=lambda out: out.sum(dim=1))
    with pytest.raises(ValueError, match="another callable than targets="):
        faithfulness.deletion(model, images, of_sum, targets=lambda out: 9 + out[:, 0])


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_MAPS)
def test_random_numbers_do_not_depend_on_defaults(name):
    """Neither on torch's default device, where no other generator can draw, nor on its dtype."""
    model, images, maps = metrics.convolutional(), metrics.images(), metrics.maps()
    masks = torch.zeros(3, 12, 12)
    masks[:, 2:7, 2:8] = 1

    def found_now():
        place = [masks] if name in PLACES else []
        options = {"targets": chance_of_0, "activation": "none"}
        return getattr(faithfulness, name)(model, images, maps, *place, **options)

    expected = found_now()
    with torch.device("meta"):
        elsewhere = found_now()
    try:
        torch.set_default_dtype(torch.float64)
        double = found_now()
    finally:
        torch.set_default_dtype(torch.float32)
    for found in (elsewhere, double):
        torch.testing.assert_close(found.values, expected.values)
        for floor, values in expected.floor_values.items():
            torch.testing.assert_close(found.floor_values[floor], values, equal_nan=True)


def chance_of_0(scores):
    return scores.softmax(dim=1)[:, :1]
