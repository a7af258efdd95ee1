"""Means, intervals and floors: coverage, NaN, and what is above."""

import math
import sys

import numpy as np
import pytest
import torch

from camlens.faithfulness import FLOORS, MetricResult
from camlens.faithfulness.metric.floors import edge_maps

from ...html_tables import Table


def result(values, floors=None, better="higher"):
    return MetricResult(
        metric="m", values=torch.as_tensor(values), better=better, floor_values=floors or {}
    )


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    draw = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(200):
        low, high = result(torch.randn(40, 1, generator=draw)).interval
        held += low <= 0 <= high
    assert 0.88 <= held / 200 <= 0.99


def test_targets_of_an_image_are_one_draw():
    one = torch.randn(50, 1, generator=torch.Generator().manual_seed(0))
    assert result(one).interval == pytest.approx(result(one.expand(50, 7)).interval, rel=1e-6)


def test_above_the_best_floor_in_either_direction():
    values = torch.tensor([[0.9], [0.7], [0.8]])
    floors = {"low": torch.full((3, 1), 0.1), "high": torch.full((3, 1), 0.6)}
    above = result(values, floors).above_floor
    assert (above.floor, above.clear) == ("high", True)
    assert above.mean == pytest.approx(0.2)
    assert 0.1 - 1e-6 <= above.low <= above.mean <= above.high <= 0.3 + 1e-6
    below = result(values, floors, better="lower").above_floor
    assert (below.floor, below.clear) == ("low", False)
    assert below.mean == pytest.approx(-0.7)


def test_unknown_values_are_left_out_of_all_means():
    values = torch.tensor([[1.0, math.nan], [math.nan, math.nan], [3.0, 5.0]])
    found = result(values, {"floor": torch.tensor([[0.0, 0.0], [9.0, 9.0], [1.0, 1.0]])})
    assert found.mean == pytest.approx(2.5)
    assert found.above_floor.mean == pytest.approx(2.0)  # of the first and third image


def test_one_image_has_no_interval_and_none_no_mean():
    single = result([[1.0]], {"floor": torch.tensor([[0.5]])})
    assert single.mean == 1.0
    assert np.isnan(single.interval).all()
    assert single.above_floor.mean == 0.5
    assert not single.above_floor.clear
    assert np.isnan(result([[math.nan]]).mean)
    assert "nan" in repr(result([[math.nan]]))


def test_without_floors_nothing_is_above():
    with pytest.raises(ValueError, match="without floors"):
        result([[1.0]]).above_floor  # noqa: B018


def test_floors_are_drawn_by_image_and_not_by_batch():
    images = torch.randn(4, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    seeds = torch.arange(4) + 7
    for name, make in FLOORS.items():
        whole = make(images, seeds)
        assert whole.shape == (4, 1, 9, 11)
        assert whole.min() >= 0
        assert whole.max() <= 1
        for n in range(4):
            torch.testing.assert_close(whole[n : n + 1], make(images[n : n + 1], seeds[n : n + 1]))
        assert torch.equal(whole, make(images, seeds)), name


def test_edges_lie_where_the_image_changes():
    image = torch.zeros(1, 3, 8, 8)
    image[..., 4:] = 1
    edges = edge_maps(image, torch.zeros(1).long())
    assert edges[0, 0, :, 3:5].eq(1).all()
    assert edges[0, 0, :, [0, 1, 2, 5, 6, 7]].eq(0).all()
    volume = torch.zeros(1, 1, 4, 4, 4)
    volume[:, :, 2:] = 1
    assert edge_maps(volume, torch.zeros(1).long())[0, 0, 1:3].eq(1).all()


@pytest.mark.parametrize(
    ("better", "order"),
    [
        ("higher", ["floor: high", "this map", "floor: low", "floor: unknown"]),
        ("lower", ["floor: low", "this map", "floor: high", "floor: unknown"]),
    ],
)
def test_a_notebook_shows_a_map_among_the_floors(better, order):
    values = {"low": 0.1, "high": 0.9, "unknown": math.nan}
    floors = {name: torch.tensor([[value]]) for name, value in values.items()}
    table = Table(result([[0.5]], floors, better)._repr_html_())
    assert table.caption == f"m: {better} is better"
    assert [row[0] for row in table.rows] == ["map", *order]
    assert table.rows[-1][1] == "undefined"
    assert set(table.bold) == {2}
    assert table.rows[2] == ["this map", "0.50"]


def test_a_notebook_shows_intervals_of_several_images():
    values = torch.tensor([[0.9], [0.7], [0.8]])
    found = result(values, {"flat": torch.full((3, 1), 0.6)})
    table = Table(found._repr_html_())
    assert table.caption == "m: higher is better; clearly better than every floor"
    low, high = found.interval
    assert table.rows[0] == ["map", "mean", "low", "high"]
    assert table.rows[1] == ["these maps", "0.80", f"{low:.2f}", f"{high:.2f}"]
    close = result(values, {"flat": torch.tensor([[0.6], [0.9], [0.8]])})
    assert "not clearly better" in Table(close._repr_html_()).caption
    assert Table(result(values)._repr_html_()).caption == "m: higher is better"


def test_intervals_name_the_extra_that_they_need(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    values = torch.tensor([[0.1], [0.3]])
    result = MetricResult(metric="deletion", values=values, better="lower")
    assert result.mean == pytest.approx(0.2)
    with pytest.raises(ImportError, match=r'intervals .* scipy: pip install "camlens\[metrics\]"'):
        _ = result.interval
    assert repr(result).startswith("MetricResult(deletion: 0.200, lower is better; intervals and")
