import dataclasses

import numpy as np
import pandas as pd
import pytest

from camlens import regions
from camlens.report import palette, region_tables
from camlens.report.run_tables import load

from .made import write_run


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "usual"
    return load(write_run(folder, images=90, classes=("a", "b", "c"), every_class=True))


def density_grid(tables):
    (grid,) = region_tables.density_grids(tables)
    return grid


def shown(tables):
    rows = tables.regions
    return rows[rows["target"] == rows["prediction"]].assign(k=0)


def test_cells_are_the_summarys(usual):
    grid = density_grid(usual)
    summary = regions.summarize(shown(usual), by="label", value="density")
    assert grid.groups == "true class"
    assert grid.title == "GradCAM (features.9, grid 12x12)"
    assert [row.name for row in grid.rows] == ["all images", "a", "b", "c"]
    for label, row in enumerate(grid.rows[1:]):
        own = summary[summary["label"] == label].set_index("region")
        assert row.images == f"{(usual.images['label'] == label).sum()} images"
        for column, cell in zip(grid.columns[:-1], row.cells, strict=False):
            expected = own.loc[column]
            assert cell.text == f"{expected['mean']:.2f}"
            assert cell.note == f"{expected['low']:.2f} to {expected['high']:.2f}"
            assert cell.shade == palette.step(expected["mean"]) + palette.STEPS
            assert cell.sure == (not expected["low"] <= 1 <= expected["high"])
            side = "above chance" if expected["mean"] > 1 else "below chance"
            assert cell.says == (side if cell.sure else "not distinguishable from chance")


def test_the_first_row_is_of_all_images(usual):
    summary = regions.summarize(shown(usual), by=[], value="density")
    cells = density_grid(usual).rows[0].cells
    assert [cell.text for cell in cells[:-1]] == [f"{mean:.2f}" for mean in summary["mean"]]


def test_the_last_column_is_the_agreement(usual):
    grid = density_grid(usual)
    values = shown(usual).drop_duplicates("image")
    assert grid.columns[-1] == "heat and effect agree"
    assert grid.rows[0].cells[-1].text == f"{values['agreement'].mean():+.2f}"
    for label, row in enumerate(grid.rows[1:]):
        mean = values.loc[values["label"] == label, "agreement"].mean()
        assert row.cells[-1].text == f"{mean:+.2f}"


def test_effects_are_of_the_score_like_the_terminals(usual):
    (grid,) = region_tables.ablation_grids(usual)
    assert "drop of the score (not of the probability)" in grid.text
    assert "Below 0: removing the region costs less than removing the same shape" in grid.text
    mean = shown(usual).groupby("region", sort=False)["excess"].mean()
    assert [cell.text for cell in grid.rows[0].cells] == [f"{v:+.3f}" for v in mean]
    assert "±" not in grid.text + "".join(cell.note for row in grid.rows for cell in row.cells)


def test_the_excess_of_a_single_image_has_its_standard_error(tmp_path):
    one = load(write_run(tmp_path / "one", images=1))
    (grid,) = region_tables.ablation_grids(one)
    assert [cell.text for cell in grid.rows[0].cells] == [f"{v:+.3f}" for v in shown(one)["excess"]]
    assert {cell.note for cell in grid.rows[0].cells} == {"± 0.200"}
    assert "± is the standard error of a single image's excess" in grid.text
    # Single images of a class beside enough of another.
    tables = load(write_run(tmp_path / "many", images=31, classes=("a", "b", "c")))
    labels = np.where(tables.images["image"] == 3, 1, 0)
    images = tables.images.assign(label=pd.array(labels, dtype="Int64"))
    rows = tables.regions
    rows = rows.assign(label=pd.array(np.where(rows["image"] == 3, 1, 0), dtype="Int64"))
    (grid,) = region_tables.ablation_grids(dataclasses.replace(tables, images=images, regions=rows))
    assert [row.images for row in grid.rows] == ["31 images", "30 images", "1 image"]
    assert {cell.note for cell in grid.rows[2].cells} == {"± 0.200"}


def test_no_effect_no_table(tmp_path):
    tables = load(write_run(tmp_path / "run", images=3, ablated=False))
    assert region_tables.ablation_grids(tables) == []
    assert density_grid(tables).columns == tuple(tables.region_names)


def test_few_images_have_neither_interval_nor_colour(tmp_path):
    tables = load(write_run(tmp_path / "run", images=9, methods=("GradCAM", "LayerCAM")))
    grid = density_grid(tables)
    # No class has images enough: a row for each method, in one table.
    assert (grid.groups, [row.name for row in grid.rows]) == ("method", ["GradCAM", "LayerCAM"])
    for method, row in zip(("GradCAM", "LayerCAM"), grid.rows, strict=True):
        own = shown(tables)[shown(tables)["method"] == method].groupby("region", sort=False)
        means = [f"{mean:.2f}" for mean in own["density"].mean()]
        assert [cell.text for cell in row.cells[:-1]] == means
    for row in grid.rows:
        for cell in row.cells:
            assert cell.shade is None
            assert cell.note == ""  # the row says of how many images it is
            assert cell.says == "too few images for an interval"
            assert cell.style == "few"


def test_what_is_too_coarse_says_so(usual):
    table = usual.regions.copy()
    eyes = table["region"] == "eyes"
    table.loc[eyes, "resolvable"] = False
    table.loc[eyes, ["density", "share"]] = float("nan")
    grid = density_grid(dataclasses.replace(usual, regions=table))
    place = grid.columns.index("eyes")
    cells = [row.cells[place] for row in grid.rows]
    assert {(cell.text, cell.shade, cell.note) for cell in cells} == {("too coarse", None, "")}
    assert {cell.style for cell in cells} == {"blank"}


def test_a_cell_of_fewer_images_than_its_row_says_so(usual):
    table = usual.regions.copy()
    nose = (table["region"] == "nose") & (table["image"] > 4)
    table.loc[nose, ["density", "share"]] = float("nan")
    grid = density_grid(dataclasses.replace(usual, regions=table))
    cell = grid.rows[0].cells[grid.columns.index("nose")]
    assert (cell.note, cell.style) == ("only 5 images", "few")


def test_without_labels_groups_are_predictions_and_without_both_there_is_one(tmp_path):
    tables = load(write_run(tmp_path / "run", images=30, labels=False))
    grid = density_grid(tables)
    assert grid.groups == "predicted class"
    assert len(grid.rows) == 4
    images = tables.images.assign(prediction=pd.array([pd.NA] * len(tables.images), "Int64"))
    grid = density_grid(dataclasses.replace(tables, images=images))
    assert [row.name for row in grid.rows] == ["GradCAM"]


def test_of_many_classes_the_largest_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(region_tables, "MOST_ROWS", 8)
    classes = tuple(f"class number {i}" for i in range(12))
    tables = load(write_run(tmp_path / "run", images=140, classes=classes))
    grid = density_grid(tables)
    sizes = tables.images["label"].value_counts()
    assert len(grid.rows) == region_tables.MOST_ROWS + 1
    assert grid.left_out == len(sizes) - region_tables.MOST_ROWS
    counts = [int(row.images.split()[0]) for row in grid.rows[1:]]
    assert counts == sorted(sizes, reverse=True)[: region_tables.MOST_ROWS]


def test_two_classes_of_one_name_stay_two(tmp_path):
    tables = load(write_run(tmp_path / "run", images=40, classes=("same", "same", "other")))
    grid = density_grid(tables)
    assert [row.name for row in grid.rows] == ["all images", "same", "same", "other"]


def test_the_file_has_the_numbers_of_the_cells(usual):
    grid = density_grid(usual)
    rows = pd.DataFrame(region_tables.records([grid]))
    assert list(rows) == [
        *("group", "method", "layer", "region", "value", "n", "mean", "low", "high"),
    ]
    wide = rows[rows["value"] == "density"].pivot(index="group", columns="region", values="mean")
    for row in grid.rows:
        means = wide.loc[row.name, list(grid.columns[:-1])]
        assert [cell.text for cell in row.cells[:-1]] == [f"{mean:.2f}" for mean in means]
