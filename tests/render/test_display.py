"""The picture of an explanation, checked by what its panels hold."""

import dataclasses
import io
import re

import matplotlib
import matplotlib.image
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from camlens import Explanation, overlay, slices
from camlens.render.drawable import prepare


def made(images, raw, targets=None, **fields):
    n, k = raw.shape[:2]
    return Explanation(
        raw=raw,
        scores=fields.pop("scores", torch.arange(n * k).view(n, k) / 4),
        targets=torch.arange(k).expand(n, k) if targets is None else targets,
        size=tuple(images.shape[2:]),
        grid=tuple(raw.shape[2:]),
        layers=("layer4",),
        method="GradCAM",
        images=images,
        **fields,
    )


def panels(figure):
    """Return the figure's panels without the colour bar, in reading order."""
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def titles(figure):
    return [axes.get_title() for axes in panels(figure)]


def drawn(axes):
    """Return the picture in a panel as (3, H, W) uint8."""
    return torch.from_numpy(np.ascontiguousarray(axes.images[0].get_array())).permute(2, 0, 1)


def texts(figure):
    supxlabel = figure.get_supxlabel()
    return [text.get_text() for axes in panels(figure) for text in axes.texts], supxlabel


@pytest.fixture
def images():
    return torch.rand(2, 3, 16, 24)


def test_images_and_overlays_with_names_scores_and_a_colour_bar(images):
    explanation = made(images, torch.rand(2, 2, 4, 6))
    figure = explanation.show(classes=["cat", "dog"])
    assert titles(figure) == [
        *("image", "cat\nscore 0", "dog\nscore 0.25"),
        *("image", "cat\nscore 0.5", "dog\nscore 0.75"),
    ]
    expected = overlay(images, explanation.heatmaps)
    axes = panels(figure)
    for n in range(2):
        picture = torch.from_numpy(np.asarray(axes[3 * n].images[0].get_array()))
        assert_close(picture.permute(2, 0, 1), images[n])
        for k in range(2):
            assert torch.equal(drawn(axes[3 * n + 1 + k]), expected[n, k])
    assert [axes[i].get_ylabel() for i in (0, 3)] == ["image 0", "image 1"]
    bar = figure.axes[-1]
    assert bar.get_ylim() == (0, 1)
    assert bar.get_ylabel() == "heat as a fraction of\nthe map's maximum"
    assert figure.get_suptitle() == "GradCAM at layer4, grid 4 x 6"
    assert texts(figure) == ([], "")


def test_a_single_image_has_no_number(images):
    figure = made(images, torch.rand(2, 1, 4, 6))[1].show()
    assert titles(figure) == ["image", "class 0\nscore 0.25"]
    assert [axes.get_ylabel() for axes in panels(figure)] == ["", ""]


def test_maps_alone_where_the_images_are_gone(images):
    explanation = made(images.clone(), torch.rand(2, 1, 4, 6))
    figure = explanation.show()
    assert titles(figure) == ["class 0\nscore 0", "class 0\nscore 0.25"]
    for n, axes in enumerate(panels(figure)):
        assert_close(torch.tensor(axes.images[0].get_array()), explanation.heatmaps[n, 0])
        assert axes.images[0].get_clim() == (0, 1)
    assert "explanation.show(images) draws them" in texts(figure)[1].replace("\n", " ")


def test_given_images_take_the_place_of_those_explained(images):
    pictures = torch.randint(0, 256, (2, 1, 32, 48), dtype=torch.uint8)
    explanation = made(images, torch.rand(2, 1, 4, 6))
    figure = explanation.show(pictures)
    assert torch.equal(drawn(panels(figure)[1]), overlay(pictures, explanation.heatmaps)[0, 0])
    assert texts(figure)[1] == ""


def test_normalised_images_are_stretched_and_the_caption_says_so(images):
    mean = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)
    normalised = (images - mean) / 0.2
    figure = made(normalised, torch.rand(2, 1, 4, 6)).show()
    assert texts(figure)[1] == "The images are not in [0, 1]: each is stretched to full contrast."
    for n in range(2):
        picture = torch.from_numpy(np.asarray(panels(figure)[2 * n].images[0].get_array()))
        low, high = normalised[n].aminmax()
        assert_close(picture.permute(2, 0, 1), (normalised[n] - low) / (high - low))


def test_no_evidence_is_said_over_the_untinted_image(images):
    raw = torch.rand(2, 1, 4, 6)
    raw[1] = 0
    figure = made(images, raw).show()
    axes = panels(figure)
    assert [[text.get_text() for text in a.texts] for a in axes] == [[], [], [], ["no evidence"]]
    assert torch.equal(drawn(axes[3]), overlay(images, raw, alpha=0.0)[1, 0])


@pytest.mark.slow
def test_what_is_not_shown_is_said():
    images = torch.rand(6, 1, 8, 8)
    scores = torch.rand(6, 9)
    explanation = made(images, torch.rand(6, 9, 2, 2), scores=scores)
    figure = explanation.show()
    best = scores[0].argsort(descending=True)[:4].tolist()
    expected = [f"class {k}\nscore {scores[0, k]:.4g}" for k in best]
    assert titles(figure)[:5] == ["image", *expected]
    assert len(titles(figure)) == 20
    caption = " ".join(texts(figure)[1].split())
    assert "Not shown: 2 of 6 images and 5 of 9 targets (those with the lowest scores)" in caption
    every = explanation.show(rows=6, columns=9)
    assert titles(every)[1:3] == [f"class {k}\nscore {scores[0, k]:.4g}" for k in (0, 1)]
    assert texts(every)[1] == ""


def test_only_what_is_shown_is_computed(images, monkeypatch):
    explanation = made(images[:1], torch.rand(1, 500, 4, 6))
    sizes = []
    monkeypatch.setattr(
        "camlens.heatmap.scale", lambda maps: sizes.append(maps.shape[1]) or maps.clamp(0, 1)
    )
    explanation.show(columns=2)
    assert sizes == [1, 1]
    assert "heatmaps" not in vars(explanation)


def test_names_of_scores_that_are_no_classes(images):
    raw = torch.rand(2, 1, 4, 6)
    single = made(images, raw, outputs=torch.zeros(2, 1))[0]
    assert titles(single.show())[1] == "the model's only output\n0"
    assert titles(single.show(classes=["age"]))[1] == "age\nscore 0"
    computed = torch.full((2, 2), -1)
    assert titles(made(images, raw, computed[:, :1]).show())[1] == "computed score\n0"
    two = made(images, torch.rand(2, 2, 4, 6), computed, outputs=torch.zeros(2, 1))
    assert titles(two.show())[1:3] == ["computed score 1 of 2\n0", "computed score 2 of 2\n0.25"]


def test_long_names_and_dollars_are_drawn_as_text(images):
    name = "a very long name of a class, of $x^2$ and more than two lines of words"
    figure = made(images, torch.rand(2, 1, 4, 6)).show(classes=[name])
    title = titles(figure)[1]
    assert title.count("\n") == 2
    assert " ...\nscore 0" in title
    assert figure._repr_png_()


def test_volumes_are_cut_at_the_hottest_slice():
    volumes, raw = torch.rand(1, 1, 6, 8, 8), torch.rand(1, 2, 3, 2, 2)
    raw[0, 0, 2], raw[0, 1, 0] = 9, 9
    explanation = made(volumes, raw)
    figure = explanation.show()
    chosen = slices.hottest(explanation.heatmaps)[0].tolist()
    assert titles(figure) == [
        f"image\nslice {chosen[0]} (0 to 5)",
        f"class 0\nscore 0\nslice {chosen[0]} (0 to 5)",
        f"class 1\nscore 0.25\nslice {chosen[1]} (0 to 5)",
    ]
    expected = overlay(volumes, explanation.heatmaps)
    assert [torch.equal(drawn(panels(figure)[1 + k]), expected[0, k]) for k in (0, 1)] == [True] * 2
    assert texts(figure)[1] == "Volumes are cut along D, at the slice with the most heat."
    alone = made(volumes.clone(), raw).show()
    heat = torch.tensor(panels(alone)[0].images[0].get_array())
    assert_close(heat, explanation.heatmaps[0, 0, chosen[0]])


def test_signals_are_lines_over_their_heat():
    signals, raw = torch.randn(2, 1, 50), torch.rand(2, 2, 10)
    raw[1, 1] = 0
    explanation = made(signals, raw)
    figure = explanation.show()
    axes = panels(figure)
    assert titles(figure)[:2] == ["class 0\nscore 0", "class 1\nscore 0.25"]
    for index in range(4):
        n, k = divmod(index, 2)
        assert_close(torch.tensor(axes[index].lines[0].get_ydata()), signals[n, 0])
        assert axes[index].get_xlim() == (-0.5, 49.5)
        if index < 3:
            heat = torch.tensor(axes[index].images[0].get_array())
            assert_close(heat, explanation.heatmaps[n, k][None])
            left, right, low, high = axes[index].images[0].get_extent()
            assert (left, right) == (-0.5, 49.5)
            assert low < signals[n].min() < signals[n].max() < high
    assert [text.get_text() for text in axes[3].texts] == ["no evidence"]
    assert not axes[3].images
    alone = made(signals.clone(), raw).show()
    line = torch.tensor(panels(alone)[0].lines[0].get_ydata())
    assert_close(line, explanation.heatmaps[0, 0])


def test_channels_of_signals_lie_below_each_other():
    signals = torch.randn(1, 14, 50)
    figure = made(signals, torch.rand(1, 1, 10)).show()
    (axes,) = panels(figure)
    lines = [torch.tensor(line.get_ydata()) for line in axes.lines]
    assert len(lines) == 12
    for channel, line in enumerate(lines):
        values = signals[0, channel]
        scaled = (values - values.min()) / (values.max() - values.min()) * 0.8 - 0.4
        assert_close(line, scaled - channel)
    assert texts(figure)[1] == "12 of 14 channels are shown."


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"images": torch.rand(3, 3, 16, 24)}, ValueError, r"2 images as \(2, C, H, W\), got \(3,"),
        ({"images": torch.rand(2, 3, 24)}, ValueError, r"2 images as \(2, C, H, W\)"),
        ({"images": torch.rand(2, 3, 24, 24)}, ValueError, "the heatmaps would be misplaced"),
        ({"images": np.zeros((2, 3, 16, 24))}, TypeError, "a tensor, got ndarray"),
        ({"images": torch.zeros(2, 3, 16, 24).long()}, TypeError, r"got torch\.int64"),
        ({"classes": ["one"]}, ValueError, "5 class names, one for each of the model's outputs"),
        ({"classes": "names"}, TypeError, "a sequence of names, got 'names'"),
        ({"classes": [1, 2, 3, 4, 5]}, TypeError, "a sequence of names"),
        ({"rows": 0}, ValueError, "at least one image, target, row and column to draw"),
    ],
)
def test_bad_arguments(images, arguments, error, message):
    explanation = made(images, torch.rand(2, 2, 4, 6), outputs=torch.zeros(2, 5))
    with pytest.raises(error, match=message):
        explanation.show(**arguments)


def test_class_names_where_the_outputs_are_unknown(images):
    explanation = made(images, torch.rand(2, 2, 4, 6))
    assert titles(explanation.show(classes=["a", "b", "c"]))[1:3] == ["a\nscore 0", "b\nscore 0.25"]
    with pytest.raises(ValueError, match="at least 2 class names for class 1, got 1"):
        explanation.show(classes=["a"])


def test_an_explanation_of_no_images_shows_its_text_alone(images):
    empty = made(images, torch.rand(2, 1, 4, 6))[:0]
    assert empty._repr_png_() is None
    with pytest.raises(ValueError, match="at least one image"):
        empty.show()
    assert made(images, torch.rand(2, 1, 4, 6)).to("meta")._repr_png_() is None


def test_drawing_leaves_pyplot_and_its_settings_alone(images):
    import matplotlib.pyplot as plt

    settings = dict(matplotlib.rcParams)
    made(images, torch.rand(2, 1, 4, 6)).show()._repr_png_()
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == settings


def test_preparing_pictures():
    many = torch.rand(1, 5, 8, 8)
    pictures, notes = prepare(many, (8, 8), count=1, rows=1)
    assert_close(pictures, many.mean(1, keepdim=True))
    assert notes == ["The images have 5 channels: their mean is drawn."]
    large, _ = prepare(torch.ones(2, 1, 1024, 2048), (64, 128), count=2, rows=1)
    assert large.shape == (1, 1, 256, 512)
    assert_close(large, torch.ones_like(large))
    flat, _ = prepare(torch.full((1, 1, 4, 4), 7.0), (4, 4), count=1, rows=1)
    assert_close(flat, torch.zeros_like(flat))
    holes = torch.rand(1, 1, 4, 4)
    holes[0, 0, 0, 0] = torch.nan
    filled, notes = prepare(holes, (4, 4), count=1, rows=1)
    assert filled.isfinite().all()
    assert len(notes) == 1
    # Of the whole batch: one image that happens to lie in [0, 1] is normalised as well.
    half = torch.stack([torch.full((1, 4, 4), 0.5), torch.linspace(-2, 2, 16).view(1, 4, 4)])
    assert prepare(half, (4, 4), count=2, rows=1)[1]


def formatters(inline):
    pytest.importorskip("IPython", reason="IPython is not installed")
    from types import SimpleNamespace

    from IPython.core.formatters import DisplayFormatter

    formatter = DisplayFormatter()
    if inline:  # what %matplotlib inline does to the display
        from IPython.core.pylabtools import select_figure_formats

        select_figure_formats(SimpleNamespace(display_formatter=formatter), {"png"})
    return formatter


@pytest.mark.slow
@pytest.mark.parametrize("inline", [False, True])
def test_a_notebook_shows_exactly_one_picture(images, inline):
    from camlens import sheet

    explanation = made(images, torch.rand(2, 1, 4, 6))
    formatter = formatters(inline)
    for value in (
        explanation,
        explanation.show(),
        sheet(overlay(images, explanation.heatmaps)),
    ):
        data, _ = formatter.format(value)
        assert sorted(data) == ["image/png", "text/plain"]
        content = data["image/png"]
        if isinstance(content, bytes):
            assert matplotlib.image.imread(io.BytesIO(content)).ndim == 3
        assert re.match(r"<?(Explanation\(|Figure)", data["text/plain"])
    assert sorted(formatter.format(dataclasses.replace(explanation).to("meta"))[0]) == [
        "text/plain"
    ]
