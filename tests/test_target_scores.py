"""Targets that are no single class: their values, and that they reach every method."""

import pickle

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import camlens
from camlens.targets import contrast, regression, rest, segmentation, similarity, text

LOGITS = torch.tensor([[4.0, 1.0, 3.0, 0.0], [0.0, 2.0, 5.0, 1.0]])


def test_a_contrast_is_a_difference():
    assert contrast(0, [1, 2], gamma=0.5)(LOGITS).tolist() == [[3.0], [-1.75]]
    # The two highest others of each image: 3 and 1, 5 and 2.
    assert_close(contrast(0, 2)(LOGITS), torch.tensor([[4 - 0.6 * 2], [0 - 0.6 * 3.5]]))


def test_the_contrast_with_grad_cam_is_that_of_the_scores_difference():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    model = nn.Sequential(*layers, nn.Linear(6, 4)).eval()
    images = torch.rand(2, 3, 12, 12)
    explainer = camlens.GradCAM(model, "1")
    found = explainer(images, targets=contrast(1, [0, 3], gamma=0.7))
    weights = model[4].weight[1] - 0.7 * model[4].weight[[0, 3]].mean(0)
    activations = model[1](model[0](images))
    expected = torch.einsum("c,nchw->nhw", weights, activations).relu() / activations[0, 0].numel()
    assert_close(found.raw[:, 0], expected.detach(), rtol=1e-4, atol=1e-7)
    assert found.outputs.shape == (2, 4)


def test_the_nearest_others_have_no_gradient_of_their_choice():
    logits = LOGITS.clone().requires_grad_()
    contrast(0, 1)(logits).sum().backward()
    assert_close(logits.grad, torch.tensor([[1, 0, -0.6, 0], [1, 0, -0.6, 0.0]]))


def test_rest_is_the_logit_and_the_log_probability():
    assert_close(rest(2)(LOGITS)[:, 0], LOGITS[:, 2] + LOGITS.log_softmax(1)[:, 2])


def test_segmentation_within_a_mask_and_where_the_class_wins():
    logits = torch.randn(2, 3, 4, 5)
    mask = torch.zeros(4, 5, dtype=torch.bool)
    mask[1:3, 2] = True
    expected = logits[:, 1, 1:3, 2].mean(dim=1)
    assert_close(segmentation(1, mask)(logits)[:, 0], expected)
    assert_close(segmentation(1, mask)({"out": logits})[:, 0], expected)
    wins = logits.argmax(1) == 2
    means = torch.stack([one[2][win].mean() for one, win in zip(logits, wins, strict=True)])
    assert_close(segmentation(2)(logits)[:, 0], means)
    nowhere = logits.clone()
    nowhere[:, 0] = -10
    assert_close(segmentation(0)(nowhere)[:, 0], torch.tensor([-10.0, -10.0]))


def test_a_regression_has_two_directions():
    assert regression()(torch.tensor([[3.0], [1.0]])).tolist() == [[3.0], [1.0]]
    assert regression(-1)(torch.tensor([3.0, 1.0])).tolist() == [[-3.0], [-1.0]]
    assert regression(output=2)(LOGITS).tolist() == [[3.0], [5.0]]


def test_texts_are_scored_by_scaled_cosines_of_their_own():
    images, texts = torch.randn(3, 8), torch.randn(5, 8)
    plain = nn.functional.normalize(images, dim=1) @ nn.functional.normalize(texts, dim=1).T
    assert_close(similarity(texts)(images), plain)
    assert_close(text(texts, scale=20)(images), 20 * plain)
    # A text's score does not depend on the others, and one alone has a gradient.
    assert_close(text(texts[2])(images)[:, 0], 100 * plain[:, 2])
    images.requires_grad_()
    text(texts[0])(images).sum().backward()
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: contrast(0, []), "expected others than class 0"),
        (lambda: contrast(0, [0, 1]), "expected others than class 0"),
        (lambda: contrast(0, 0), "at least 1 other class"),
        (lambda: contrast(9, [1])(LOGITS), r"classes 0 to 3, got \[9\]"),
        (lambda: contrast(0, 4)(LOGITS), "at most 3 other classes"),
        (lambda: rest(-1)(LOGITS), r"classes 0 to 3, got \[-1\]"),
        (lambda: segmentation(0, torch.zeros(2, 2)), "an empty one"),
        (lambda: segmentation(0)(LOGITS), r"\(N, classes, h, w\) logits, got \(2, 4\)"),
        (lambda: segmentation(5)(torch.rand(1, 3, 2, 2)), "a class 0 to 2, got 5"),
        (lambda: segmentation(0, torch.ones(9, 9))(torch.rand(1, 3, 2, 2)), "the output's size"),
        (lambda: regression(2), "sign 1 or -1"),
        (lambda: regression(output=4)(LOGITS), "an output below 4"),
        (lambda: similarity(torch.zeros(3)), "finite and not zero"),
        (lambda: similarity(torch.rand(2, 2, 2)), r"\(D,\) or \(K, D\)"),
        (lambda: similarity(torch.rand(3))(LOGITS), "embeddings of 4 numbers"),
        (lambda: regression()(torch.rand(2, 3, 4)), r"\(N, D\) numbers, got \(2, 3, 4\)"),
    ],
)
def test_what_cannot_be_right_is_an_error(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_they_can_be_sent_to_other_processes():
    for made in (contrast(0, 2), rest(1), segmentation(0, torch.ones(2, 2)), similarity(LOGITS[0])):
        again = pickle.loads(pickle.dumps(made))
        outputs = torch.rand(2, 3, 2, 2) if "Segmentation" in repr(made) else LOGITS
        assert torch.equal(again(outputs), made(outputs))
