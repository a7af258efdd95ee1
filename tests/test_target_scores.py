"""Targets that are no single class: their values, and that they reach every method."""

import pickle

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import camlens
from camlens.targets import box, contrast, regression, rest, segmentation, similarity, text

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
        (lambda: contrast(0, []), "expected classes other than 0"),
        (lambda: contrast(0, [0, 1]), "expected classes other than 0"),
        (lambda: contrast(0, 0), "at least 1 other class"),
        (lambda: contrast(9, [1])(LOGITS), r"classes 0 to 3, got \[9\]"),
        (lambda: contrast(0, 4)(LOGITS), "at most 3 other classes"),
        (lambda: rest(-1)(LOGITS), r"classes 0 to 3, got \[-1\]"),
        (lambda: segmentation(0, torch.zeros(2, 2)), "an empty one"),
        (lambda: segmentation(0, torch.tensor([[1.0, -1.0]])), "not negative"),
        (lambda: segmentation(0, torch.tensor([[1.0, torch.nan]])), "finite weights"),
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


class Detector(nn.Module):
    """Two boxes of class 1, scored by the mean of the left and right half, the better one first."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.ones_(self.layer.weight)

    def forward(self, x):
        maps = self.layer(x)
        w = maps.shape[3]
        halves = torch.tensor([[0.0, 0, w / 2, w], [w / 2, 0, w, w]])
        results = []
        for each in maps:
            scores = torch.stack([each[..., : w // 2].mean(), each[..., w // 2 :].mean()])
            order = scores.argsort(descending=True)
            results.append(
                {"boxes": halves[order], "labels": torch.ones(2).long(), "scores": scores[order]}
            )
        return results


def test_a_box_keeps_its_place_when_a_change_puts_another_one_first():
    model = Detector().eval()
    images = torch.full((1, 1, 4, 4), 0.8)
    images[..., 2:] = 0.6
    found = model(images)[0]
    target = box(found["boxes"][0], found["labels"][0])
    explanation = camlens.Occlusion(model, window=2, stride=2)(images, targets=target)
    assert_close(explanation.scores, torch.tensor([[0.8]]))
    # Without a quarter of the left half the right one comes first; the left one still counts.
    assert_close(explanation.raw[0, 0, :, :2], torch.full((4, 2), 0.4))
    assert not explanation.raw[0, 0, :, 2:].any()


def test_boxes_of_each_image_follow_it():
    model = Detector().eval()
    images = torch.rand(3, 1, 4, 4)
    boxes = torch.stack([each["boxes"] for each in model(images)])
    labels = torch.ones(3, 2).long()
    together = camlens.Occlusion(model, window=2, stride=2)(images, targets=box(boxes, labels))
    heat = camlens.GradCAM(model, "layer")(images, targets=box(boxes, labels))
    for n in range(3):
        own = box(boxes[n], labels[n])
        alone = camlens.Occlusion(model, window=2, stride=2)(images[n : n + 1], targets=own)
        assert_close(together.raw[n], alone.raw[0])
        assert_close(together.scores[n], model(images)[n]["scores"])
        single = camlens.GradCAM(model, "layer")(images[n : n + 1], targets=own)
        assert_close(heat.raw[n], single.raw[0])


def test_candidates_of_a_box_are_read_by_a_function():
    boxes = torch.tensor([[[0.0, 0, 4, 4], [0, 0, 2, 4], [6, 6, 8, 8]]])
    scores = torch.tensor([[[0.9, 0.1], [0.2, 0.8], [0.3, 0.3]]])
    target = box(boxes[0, :2], [0, 1], read=lambda out: out)
    assert_close(target((boxes, scores)), torch.tensor([[0.9, 0.8]]))
    # The narrow box of class 0: the wide one overlaps by half, .5 x .9 beats 1 x .2.
    assert_close(box(boxes[0, 1], 0, read=lambda out: out)((boxes, scores)), torch.tensor([[0.45]]))


def test_gradients_of_a_box_pass_its_score_alone():
    boxes = torch.tensor([[[0.0, 0, 4, 4], [0, 0, 2, 4]]], requires_grad=True)
    scores = torch.tensor([[[0.9], [0.2]]], requires_grad=True)
    box(torch.tensor([0.0, 0, 4, 3]), 0, read=lambda out: out)((boxes, scores)).sum().backward()
    assert boxes.grad is None
    assert_close(scores.grad, torch.tensor([[[0.75], [0.0]]]))


def test_a_box_that_the_detector_does_not_find_is_an_error():
    model, images = Detector().eval(), torch.rand(1, 1, 4, 4)
    with pytest.raises(ValueError, match=r"a detection of class 3 .* overlaps it by 0\.00"):
        camlens.GradCAM(model, "layer")(images, targets=box(torch.tensor([0.0, 0, 2, 4]), 3))
    with pytest.raises(ValueError, match=r"by 0\.33"):
        camlens.GradCAM(model, "layer")(images, targets=box(torch.tensor([1.0, 0, 3, 4]), 1))


class Pixels(nn.Module):
    """Two classes: the image, and a constant."""

    def forward(self, x):
        return torch.cat([x, torch.full_like(x, 0.5)], dim=1)


def test_the_pixels_of_a_class_are_those_of_the_unchanged_image():
    images = torch.tensor([[0.9, 0.9, 0.1, 0.1]]).expand(4, 4)[None, None].clone()
    explanation = camlens.Occlusion(Pixels().eval(), window=2, stride=2)(
        images, targets=segmentation(0)
    )
    # A window hides four of the eight pixels of the class: half of .9.
    assert_close(explanation.raw[0, 0, :, :2], torch.full((4, 2), 0.45))
    assert not explanation.raw[0, 0, :, 2:].any()


def test_region_ablation_keeps_the_pixels_of_the_unchanged_image():
    images = torch.tensor([[0.9, 0.9, 0.1, 0.1]]).expand(4, 4)[None, None].repeat(2, 1, 1, 1)
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2, :2] = 1
    ablation = camlens.faithfulness.ablate_regions(
        Pixels().eval(),
        images,
        camlens.regions.Regions(["corner"], mask),
        targets=segmentation(0),
        infill="mean",
        batch=3,
    )
    assert_close(ablation.drop.flatten(), torch.full((2,), 0.2))  # half of .9 - .5


def test_the_nearest_others_are_those_of_the_unchanged_image():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3, bias=False)).eval()
    weights = torch.zeros(3, 16)
    weights[1, 0], weights[2, 1] = 1.0, 0.9  # without pixel 0 class 2 is nearest, not class 1
    model[1].weight.data.copy_(weights)
    explanation = camlens.Occlusion(model, window=1, stride=1)(
        torch.ones(1, 1, 4, 4), targets=contrast(0, 1, gamma=1.0)
    )
    assert_close(explanation.gradients[0, 0, 0, 0, :2], torch.tensor([-1.0, 0.0]))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: box(torch.rand(3), 0), r"boxes as \(4,\), \(K, 4\) or \(N, K, 4\)"),
        (lambda: box(torch.tensor([1.0, 1, 0, 2]), 0), "x0 < x1"),
        (lambda: box(torch.tensor([[0.0, 0, 1, 1]]), [0, 1]), r"a label for each of \(1,\) boxes"),
        (lambda: box(torch.tensor([0.0, 0, 1, 1]), 0)(LOGITS), r"pass read=\.\.\. to read"),
        (lambda: box(torch.tensor([0.0, 0, 1, 1]), 0.5), "labels as integers"),
        (
            lambda: box(torch.tensor([0.0, 0, 1, 1]), 7, read=lambda out: out)(
                (torch.rand(1, 2, 4), torch.rand(1, 2, 3))
            ),
            "labels 0 to 2",
        ),
    ],
)
def test_what_is_no_box_is_an_error(make, match):
    with pytest.raises((TypeError, ValueError), match=match):
        make()
