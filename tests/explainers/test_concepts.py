"""Deep feature factorization: its falls are the model's, its options, its file and its picture."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import camlens
from camlens.render import concepts as drawn_concepts

from ..nets import Small


def rectified():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 4),
    ).eval()


IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_falls_are_the_scores_without_a_concept():
    model = rectified()
    explanation = camlens.DeepFeatureFactorization(model, "1", concepts=3)(IMAGES, targets="all")
    concepts = explanation.concepts
    with torch.no_grad():
        activations = model[:2](IMAGES)
        for f in range(3):
            part = concepts.maps[:, f, None] * concepts.directions[:, f, :, None, None]
            fall = model(IMAGES) - model[2:](activations - part)
            assert_close(concepts.falls[..., f], fall, rtol=1e-4, atol=1e-5)


def test_behind_a_linear_end_falls_and_what_is_unexplained_add_up():
    """Average and linear layer: all concepts' falls are the score less that of what they leave."""
    model = rectified()
    explanation = camlens.DeepFeatureFactorization(model, "1", concepts=3)(IMAGES, targets="all")
    concepts = explanation.concepts
    whole = torch.einsum("nfhw,nfc->nchw", concepts.maps, concepts.directions)
    with torch.no_grad():
        rest = model[2:](model[:2](IMAGES) - whole)
        assert_close(concepts.falls.sum(dim=2), model(IMAGES) - rest, rtol=1e-4, atol=1e-5)
        size = model[:2](IMAGES).flatten(1).norm(dim=1)
        gap = (model[:2](IMAGES) - whole).flatten(1).norm(dim=1) / size
        assert_close(explanation.measures["unexplained"], gap.unsqueeze(1).expand(-1, 4))


@pytest.mark.slow
def test_more_concepts_leave_less():
    left = [
        camlens.DeepFeatureFactorization(rectified(), "1", concepts=count)(IMAGES)
        .measures["unexplained"]
        .max()
        for count in (1, 3, 6, 12)
    ]
    assert left == sorted(left, reverse=True)
    assert left[-1] < 0.1


def test_a_planted_part_is_a_concept_of_its_own_and_the_one_that_counts():
    """Channel 0 is on in a corner and channel 1 elsewhere; the score is that of channel 0."""
    model = nn.Sequential(
        nn.Conv2d(2, 2, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(128, 2, bias=False)
    ).eval()
    model[0].weight.data.copy_(torch.eye(2).view(2, 2, 1, 1))
    model[3].weight.data.zero_()
    model[3].weight.data[0, :64] = 1.0
    image = torch.zeros(1, 2, 8, 8)
    image[0, 0, :3, :3], image[0, 1, 4:, 4:] = 0.5, 1.0
    explanation = camlens.DeepFeatureFactorization(model, "1", concepts=2)(image, targets=0)
    assert_close(explanation.concepts.falls[0, 0], torch.tensor([0.0, 4.5]), atol=1e-3, rtol=0)
    assert_close(explanation.heatmaps[0, 0], (image[0, 0] > 0).float(), atol=1e-3, rtol=0)


def test_shared_concepts_have_one_direction_and_own_ones_do_not_depend_on_other_images():
    model = rectified()
    shared = camlens.DeepFeatureFactorization(model, "1", shared=True)(IMAGES)
    assert torch.equal(shared.concepts.directions[0], shared.concepts.directions[2])
    own = camlens.DeepFeatureFactorization(model, "1")(IMAGES)
    assert not torch.equal(own.concepts.directions[0], own.concepts.directions[2])
    # Concepts that were found together are found again in single images.
    directions = shared.concepts.directions[0]
    again = camlens.DeepFeatureFactorization(model, "1", directions=directions)(IMAGES[1:2])
    assert_close(again.concepts.maps[0], shared.concepts.maps[1], rtol=0, atol=0.05)


def test_negative_activations_need_to_be_allowed():
    model = Small().eval()
    with pytest.raises(ValueError, match=r"a layer after a ReLU .* or pass signed=True"):
        camlens.DeepFeatureFactorization(model, "conv2", concepts=2)(IMAGES)
    explanation = camlens.DeepFeatureFactorization(model, "conv2", concepts=2, signed=True)(IMAGES)
    assert (explanation.concepts.maps >= 0).all()
    assert (explanation.concepts.directions < 0).any()


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda m: camlens.DeepFeatureFactorization(m, "1", concepts=0), "at least 1"),
        (lambda m: camlens.DeepFeatureFactorization(m, ["0", "1"]), "expected one layer"),
        (
            lambda m: camlens.DeepFeatureFactorization(m, "1", create_graph=True),
            "does not support create_graph=True",
        ),
        (
            lambda m: camlens.DeepFeatureFactorization(m, "1", directions=torch.ones(5)),
            r"\(concepts, channels\), got \(5,\)",
        ),
        (
            lambda m: camlens.DeepFeatureFactorization(m, "1", directions=torch.ones(2, 5))(IMAGES),
            "the layer's 12 channels, got 5",
        ),
        (
            lambda m: camlens.DeepFeatureFactorization(m, "1", concepts=13)(IMAGES),
            "at most 12 concepts for 64 cells and 12 channels",
        ),
    ],
)
def test_what_cannot_be_factorized_is_an_error(make, match):
    with pytest.raises(ValueError, match=match):
        make(rectified())


def test_concepts_are_indexed_and_saved_with_the_explanation(tmp_path):
    explanation = camlens.DeepFeatureFactorization(rectified(), "1")(IMAGES, targets="all")
    some = explanation[[2, 0]]
    assert torch.equal(some.concepts.maps, explanation.concepts.maps[[2, 0]])
    explanation.save(tmp_path / "explanation.safetensors")
    loaded = camlens.Explanation.load(tmp_path / "explanation.safetensors")
    for name in ("maps", "directions", "falls"):
        assert torch.equal(getattr(loaded.concepts, name), getattr(explanation.concepts, name))


def test_concepts_of_another_shape_are_an_error():
    explanation = camlens.DeepFeatureFactorization(rectified(), "1")(IMAGES)
    with pytest.raises(ValueError, match=r"falls \(N, K, F\)"):
        dataclasses.replace(explanation, concepts=explanation.concepts.each(lambda t: t[1:]))


def test_a_concept_is_drawn_where_it_is_strongest():
    heat = torch.tensor([[[[1.0, 0.2, 0.0]], [[0.0, 0.8, 0.0]]]])
    picture = drawn_concepts(torch.full((1, 3, 1, 3), 0.5), heat, alpha=0.5)[0, :, 0].T.tolist()
    first, second = (torch.tensor(c) for c in ((0.90, 0.62, 0.00), (0.34, 0.71, 0.91)))
    grey = torch.full((3,), 0.5)
    expected = [0.5 * grey + 0.5 * first, 0.6 * grey + 0.4 * second, grey]
    for got, value in zip(picture, expected, strict=True):
        assert got == [round(c) for c in (255 * value).tolist()] or got == [
            int(c + 0.5) for c in (255 * value).tolist()
        ]


def test_a_figure_has_the_concepts_with_a_legend():
    explanation = camlens.DeepFeatureFactorization(rectified(), "1", concepts=3)(IMAGES)
    figure = explanation.show(IMAGES)
    panels = [panel for panel in figure.axes if panel.get_legend() is not None]
    assert len(panels) == 3  # one an image
    texts = [t.get_text() for t in panels[0].get_legend().get_texts()]
    falls = explanation.concepts.falls[0, 0].tolist()
    assert texts == [f"{i + 1}: {-fall:+.3g}" for i, fall in enumerate(falls)]


def test_a_mean_over_noisy_images_does_not_keep_the_concepts_of_one_of_them():
    explain = camlens.DeepFeatureFactorization(rectified(), "1", concepts=3)
    explanation = camlens.SmoothGrad(explain, samples=2)(IMAGES)
    assert explanation.concepts is None
    assert not explanation.measures
