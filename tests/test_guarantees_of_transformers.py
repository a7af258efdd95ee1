"""The promises of test_guarantees.py, for the explainers that are made for transformers."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from .families import ATTENTION, OF_TRANSFORMERS
from .nets import hooks, small_vit
from .test_guarantees import assert_same, assert_threads_agree, state_of

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))

pytestmark = pytest.mark.parametrize("explainer", OF_TRANSFORMERS)


@pytest.mark.slow
def test_several_targets_are_several_calls_and_a_batch_is_its_single_images(explainer):
    model = small_vit()
    explain = explainer(model)
    every = explain(IMAGES, targets="all")
    assert every.raw.amax() > 0
    for k in range(5):
        assert_close(explain(IMAGES, targets=k).raw[:, 0], every.raw[:, k], rtol=1e-4, atol=1e-6)
    for n in range(3):
        alone = explain(IMAGES[n : n + 1], targets="all").raw[0]
        assert_close(alone, every.raw[n], rtol=1e-4, atol=1e-6)
    best = model(IMAGES).argmax(dim=1)
    assert_close(explain(IMAGES).raw[:, 0], every.raw[range(3), best], rtol=1e-4, atol=1e-6)
    if explainer in ATTENTION:
        assert every.registration is not None
        assert every.registration.proven


@pytest.mark.parametrize("error", [None, RuntimeError("within"), KeyboardInterrupt()])
def test_the_model_is_bit_identical_after_a_call(explainer, error):
    model, images = small_vit(), IMAGES.clone()
    with torch.no_grad():
        plain = model(images)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    explain = explainer(model)
    before = state_of(model)
    if error is None:
        explain(images, targets="all")
    else:

        def fail(_):
            raise error

        with pytest.raises(type(error)):
            explain(images, targets=fail)
    assert_same(before, state_of(model))
    assert hooks(model) == 0
    assert torch.equal(images, IMAGES)
    with torch.no_grad():
        assert torch.equal(model(images), plain)


@pytest.mark.slow
def test_how_one_calls_makes_no_difference(explainer):
    model = small_vit()
    explain = explainer(model)
    expected = explain(IMAGES, targets="all").raw
    for around in (torch.no_grad, torch.inference_mode):
        with around():
            assert torch.equal(explain(IMAGES.clone(), targets="all").raw, expected)
    frozen = explainer(copy.deepcopy(model).requires_grad_(False))
    assert_close(frozen(IMAGES, targets="all").raw, expected)
    again = pickle.loads(pickle.dumps(explain))
    assert_close(again(IMAGES, targets="all").raw, expected)
    last = IMAGES.contiguous(memory_format=torch.channels_last)
    found = explain(last, targets="all").raw
    assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.amax().item())
    with torch.device("meta"):  # where torch's default device is another, as after
        found = explainer(model)(IMAGES, targets="all").raw  # torch.set_default_device("cuda")
    assert_close(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["autocast", "bfloat16"])
def test_half_precision_gives_float32_maps(explainer, how):
    model = small_vit()
    expected = explainer(model)(IMAGES, targets="all")
    if how == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            found = explainer(model)(IMAGES, targets="all")
    else:
        half = copy.deepcopy(model).bfloat16()
        found = explainer(half)(IMAGES.bfloat16(), targets="all")
    assert found.raw.dtype == found.scores.dtype == torch.float32
    similarity = nn.functional.cosine_similarity(found.raw.flatten(2), expected.raw.flatten(2), 2)
    assert (similarity > 0.97).all(), similarity


@pytest.mark.slow
def test_eight_threads_share_a_model(explainer):
    explain = explainer(small_vit())
    assert_threads_agree(explain, [torch.randn(2, 3, 32, 32) for _ in range(8)])
