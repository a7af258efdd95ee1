"""The figure of an evaluation shows the numbers of its table."""

import numpy as np
import pandas as pd
import pytest

from camlens.faithfulness import Evaluation

MEANS = {
    ("insertion", "higher"): {"cam": 0.9, "saliency": 0.3, "floor": (0.2, 0.5)},
    ("deletion", "lower"): {"cam": 0.1, "saliency": 0.6, "floor": (0.4, 0.3)},
}


@pytest.fixture(scope="module")
def found():
    noise = np.random.default_rng(0).normal(0, 0.02, 30)
    rows = [
        {
            **{"image": image, "k": 0, "target": 0, "method": method, "metric": metric},
            **{"better": better, "value": means[method] + noise[image]},
            **{"floor_random": means["floor"][0], "floor_centre": means["floor"][1]},
            **{"curve": None, "curve_from": 0.0, "curve_to": 1.0},
        }
        for (metric, better), means in MEANS.items()
        for method in ("cam", "saliency")
        for image in range(30)
    ]
    return Evaluation.of_rows(pd.DataFrame(rows))


def panel(figure, title):
    (axes,) = (one for one in figure.axes if one.get_title() == title)
    return axes


@pytest.mark.parametrize(("metric", "best"), [("insertion", 0.5), ("deletion", 0.3)])
def test_marks_stand_at_the_means(found, metric, best):
    axes = panel(found.plot([metric]), metric)
    table = found.table.query("metric == @metric").set_index("method")
    dots = {line.get_ydata()[0]: line for line in axes.lines if line.get_marker() == "o"}
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        *("cam", "saliency", "random", "centre")
    ]
    for y, method in enumerate(("cam", "saliency")):
        assert dots[y].get_xdata()[0] == table["mean"][method]
        filled = dots[y].get_markerfacecolor() != "white"
        assert filled == table["clear"][method]
    squares = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "s"]
    assert squares == pytest.approx([table["floor_random"]["cam"], table["floor_centre"]["cam"]])
    (dashed,) = (line for line in axes.lines if line.get_linestyle() == "--")
    assert dashed.get_xdata()[0] == pytest.approx(best)


def test_bars_are_the_intervals(found):
    axes = panel(found.plot(["deletion"]), "deletion")
    row = found.table.query("metric == 'deletion' and method == 'cam'").iloc[0]
    bars = [tuple(line.get_xdata()) for line in axes.lines if line.get_marker() == "None"]
    assert (row["low"], row["high"]) in bars


def test_metrics_are_chosen_and_ordered(found):
    figure = found.plot(["deletion", "insertion"])
    assert figure._repr_png_().startswith(b"\x89PNG")  # a notebook shows it
    legend = figure._supxlabel.get_window_extent()
    assert 0 <= legend.x0 < legend.x1 <= figure.bbox.x1  # nothing is cut off
    assert [axes.get_title() for axes in figure.axes] == ["deletion", "insertion"]
    with pytest.raises(ValueError, match=r"expected metrics from .*'insertion'.*got \['road'\]"):
        found.plot(["road"])
    with pytest.raises(ValueError, match="no metric to draw"):
        found.plot([])
