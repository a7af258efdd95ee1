"""Figures: the numbers that are drawn are those of the summary, and what is missing says so."""

import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot
from matplotlib.patches import Rectangle

from camlens.regions.plots import density_against_excess, density_map
from camlens.regions.statistics import summarize
from camlens.regions.tables import table

from .made import ablation_of, noise, scores_of

CLASSES = ["angry", "happy", "sad"]
NAMES = ("eyes", "nose", "mouth")
LABELS = [0] * 30 + [1] * 30 + [2] * 4


def rows_of(*, k=1, **options):
    """Happy has its mouth, sad is rare, noses cannot be told."""
    density = noise(64, k, 3)
    density[30:, :, 2] *= 3
    resolvable = torch.ones(64, k, 3, dtype=torch.bool)
    resolvable[..., 1] = False
    scores = scores_of(density, names=NAMES, resolvable=resolvable)
    drop = noise(64, k, 3, seed=1) + scores.density.nan_to_num(0.0)
    ablation = ablation_of(drop, 0.5, names=NAMES)
    return table(scores, labels=LABELS, classes=CLASSES, ablation=ablation, **options)


@pytest.fixture(scope="module")
def rows():
    return rows_of()


@pytest.fixture(scope="module")
def summary(rows):
    return summarize(rows)


def texts_at(axes):
    """Texts by column and row of the cell they stand in, from above."""
    found = {}
    for text in sorted(axes.texts, key=lambda text: text.get_position()[1]):
        x, y = text.get_position()
        found.setdefault((round(x), round(y)), []).append(text)
    return found


@pytest.mark.parametrize(
    ("value", "low", "high"), [("mean", "low", "high"), ("lift", "lift_low", "lift_high")]
)
def test_each_cell_has_its_number_and_interval(summary, value, low, high):
    axes = density_map(summary, value=value).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == list(NAMES)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["angry\nn = 30", "happy\nn = 30", "sad\nn = 4"]
    found = texts_at(axes)
    enough = summary[summary["enough"]]
    assert len(enough) == 4
    for _, row in enough.iterrows():
        cell = found[NAMES.index(row["region"]), CLASSES.index(row["label"])]
        assert [text.get_text() for text in cell] == [
            f"{row[value]:.2f}",
            f"{row[low]:.2f} to {row[high]:.2f}",
        ]
        bold = row[low] > 1 or row[high] < 1
        assert cell[0].get_weight() == ("bold" if bold else "normal")
    assert any(text[0].get_weight() == "bold" for text in found.values())


def test_what_cannot_be_said_is_hatched_and_says_why(summary):
    axes = density_map(summary).axes[0]
    found = {k: [t.get_text() for t in v] for k, v in texts_at(axes).items()}
    assert found[1, 0] == found[1, 1] == found[1, 2] == ["not\nresolvable"]
    assert found[0, 2] == found[2, 2] == ["only\n4 images"]
    boxes = {
        (round(p.get_x() + 0.5), round(p.get_y() + 0.5)): p.get_hatch()
        for p in axes.patches
        if isinstance(p, Rectangle)
    }
    assert {place for place, hatch in boxes.items() if hatch} == {(1, 0), (1, 1), (1, 2)} | {
        (0, 2),
        (2, 2),
    }
    assert len(boxes) == 9


def test_colours_are_symmetric_in_the_factor():
    """A density of 4, 1 and 1/4: the ends and the middle of the scale; 100 is no more than 4."""
    density = torch.tensor([4.0, 1.0, 0.25, 100.0]).expand(10, 1, 4)
    found = summarize(table(scores_of(density), labels=[0] * 10), resamples=9)
    patches = density_map(found).axes[0].patches
    colors = [p.get_facecolor() for p in sorted(patches, key=Rectangle.get_x)]
    scale = matplotlib.colormaps["PuOr_r"]
    assert colors == [scale(1.0), scale(0.5), scale(0.0), scale(1.0)]


def test_titles_say_what_of_and_what_one_is(summary):
    figure = density_map(summary)
    title = figure.get_suptitle()
    assert "share of the heat over share of the area" in title
    assert "GradCAM, layer features.34, grid 12x10, target 1 of each image (k = 0)" in title
    assert "1: expected by chance" in [t.get_text() for t in figure.axes[1].get_yticklabels()]
    lift = density_map(summary, value="lift")
    assert "a group's density over that of all groups together" in lift.get_suptitle()
    assert "1: as in all groups" in [t.get_text() for t in lift.axes[1].get_yticklabels()]


@pytest.mark.slow
def test_no_labels_collide(summary, rows):
    """Of neighbouring cells and panels, as they are on paper; long names widen the columns."""
    longer = summary.replace(
        {
            "region": {
                "eyes": "the left upper eyelid and its lashes",
                "nose": "the tip of the nose only",
            }
        }
    )
    for figure in (density_map(longer), density_against_excess(rows)):
        figure.draw_without_rendering()
        for axes in figure.axes:
            for labels in (axes.get_xticklabels(), axes.get_yticklabels(), axes.texts):
                boxes = [t.get_window_extent() for t in labels if t.get_text() and t.get_visible()]
                for i, box in enumerate(boxes):
                    assert not any(box.overlaps(other) for other in boxes[:i])
        for text in figure.texts:
            box = text.get_window_extent()
            assert box.x0 >= 0
            assert box.x1 <= figure.bbox.x1


def test_several_columns_and_none(rows):
    (label,) = density_map(summarize(rows, by=[]), by=[]).axes[0].get_yticklabels()
    assert label.get_text() == "all\nn = 64"
    predicted = table(
        scores_of(noise(40, 1, 1)), labels=[0] * 40, predictions=[0, 1] * 20, classes=CLASSES
    )
    by = ["label", "prediction"]
    axes = density_map(summarize(predicted, by=by), by=by).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["angry / angry\nn = 20", "angry / happy\nn = 20"]
    assert axes.get_ylabel() == "label / prediction"


def test_a_summary_that_cannot_be_drawn(rows, summary):
    two = summarize(rows_of(k=2))
    with pytest.raises(ValueError, match=r"one k, got 2: \[0, 1\]; filter .*table\['k'\] == 0\]"):
        density_map(two)
    assert density_map(two[two["k"] == 1]).get_suptitle().endswith("(k = 1)")
    with pytest.raises(ValueError, match=r"expected a summary of density, .* got one of share"):
        density_map(summarize(rows, value="share"))
    assert (
        "group's share over"
        in density_map(summarize(rows, value="share"), value="lift").get_suptitle()
    )
    with pytest.raises(ValueError, match="expected the value 'mean' or 'lift', got 'median'"):
        density_map(summary, value="median")
    with pytest.raises(ValueError, match="one row for each group and region, got 9 of 3"):
        density_map(summary, by="grid")


def test_paired_dots_are_the_means_with_their_intervals(rows):
    figure = density_against_excess(rows)
    assert len(figure.axes) == 6
    assert figure.axes[0].get_xlim() == figure.axes[2].get_xlim()
    for place, value in enumerate(("density", "excess")):
        expected = summarize(rows, value=value)
        for i, name in enumerate(CLASSES[:2]):
            axes = figure.axes[2 * i + place]
            assert [t.get_text() for t in figure.axes[2 * i].get_yticklabels()] == list(NAMES)
            assert axes.get_ylim() == (2.5, -0.5)
            chance, *lines = axes.lines
            assert list(chance.get_xdata()) == [1 - place] * 2
            own = expected[(expected["label"] == name) & expected["enough"]]
            ends, dots = lines[::2], lines[1::2]
            assert [list(line.get_xdata()) for line in ends] == own[["low", "high"]].values.tolist()
            assert [line.get_xdata()[0] for line in dots] == own["mean"].tolist()
            heights = [NAMES.index(region) for region in own["region"]]
            assert [line.get_ydata()[0] for line in dots] == heights
            low, high = axes.get_xlim()
            assert low <= min(own["low"]) <= max(own["high"]) <= high


@pytest.mark.slow
def test_paired_plot_says_what_it_cannot_show(rows):
    figure = density_against_excess(rows)
    assert figure._repr_png_().startswith(b"\x89PNG")  # a notebook shows it
    happy, sad = figure.axes[2], figure.axes[4]
    assert [(t.get_text(), t.get_position()[1]) for t in happy.texts] == [("not resolvable", 1)]
    assert [t.get_text() for t in sad.texts] == ["only 4 images", "not resolvable", "only 4 images"]
    assert len(figure.axes[3].texts) == 0  # without the map, the ablation is known


def test_each_group_has_its_agreement():
    density = torch.tensor([[1.0, 2, 3, 4]]).expand(20, 1, 4)
    drop = density.clone()
    drop[15:] = -drop[15:]  # Spearman's coefficient is 1 of 15 images, -1 of 5
    rows = table(
        scores_of(density), ablation=ablation_of(drop, 0), labels=[0] * 20, classes=CLASSES
    )
    (part,) = density_against_excess(rows).subfigs
    assert part.get_suptitle() == (
        "angry, 20 images\nagreement within an explanation: mean +0.50, above 0 for 75% of 20"
    )
    (part,) = density_against_excess(rows, min_images=21).subfigs
    assert part.get_suptitle().endswith("known for 20 only")


def test_paired_plot_says_what_is_measured(rows):
    left, right = density_against_excess(rows, by=[], value="probability_excess").axes
    assert left.get_xlabel() == "density (1 = chance)"
    assert right.get_xlabel() == "drop of the probability (0 = chance)"
    mean = summarize(rows, by=[], value="probability_excess")["mean"]
    np.testing.assert_array_equal([line.get_xdata()[0] for line in right.lines[2::2]], mean)
    note = density_against_excess(rows).get_supxlabel()
    assert re.search(r"infill: blur; bars: 95% interval over\s+images", note)


def test_a_table_that_cannot_be_drawn(rows):
    with pytest.raises(ValueError, match=r"expected value to be one of \('excess', .*got 'drop'"):
        density_against_excess(rows, value="drop")
    with pytest.raises(ValueError, match=r"table\(scores, ablation=\.\.\.\)"):
        density_against_excess(table(scores_of(noise(4, 1, 3)), labels=[0] * 4))
    with pytest.raises(ValueError, match="expected rows with one infill, got 2"):
        density_against_excess(pd.concat([rows, rows.assign(infill="mean")]))


def test_nothing_global_is_touched(summary):
    density_map(summary)
    assert pyplot.get_fignums() == []
