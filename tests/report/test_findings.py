"""What is said, and what is not: numbers are the tables', and nothing trivial is a finding."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from camlens import regions
from camlens.report import findings
from camlens.report.run_tables import load
from camlens.report.wording import name

from .made import seal, write_run


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "usual"
    made = {"images": 80, "every_class": True, "empty": (3, 4), "unreadable": (5, 6, 7)}
    return load(write_run(folder, methods=("GradCAM", "LayerCAM"), **made))


def of(tables, label):
    """Return a finding's values, one for each setting."""
    (found,) = [one for one in findings.findings(tables) if one.label == label]
    return found.values


def changed(tables, **tables_by_name):
    return dataclasses.replace(tables, **tables_by_name)


def test_how_many_and_how_right(usual):
    right = usual.images["correct"].sum()
    images, accuracy, confusion, unreadable = findings.facts(usual)
    assert (images, unreadable) == ("77 images", "3 unreadable")
    assert accuracy.startswith(f"{right} of 77 predicted correctly: {100 * right / 77:.1f}% (95% ")
    wrong = usual.images[~usual.images["correct"].astype(bool)]
    pairs = wrong.groupby(["label", "prediction"]).size()
    label, prediction = pairs.idxmax()
    taken = f"{name(usual.class_name(label))} mistaken for {name(usual.class_name(prediction))}"
    assert confusion.startswith(f"most often {taken} ({pairs.max()} of {len(wrong)} wrong")


def test_the_interval_is_wilsons(tmp_path):
    tables = load(write_run(tmp_path / "run", images=10))
    tables.images["correct"] = [True] * 8 + [False] * 2
    # Wilson 1927 by hand: z = 1.96, p = 0.8, n = 10.
    assert "8 of 10 predicted correctly: 80% (95% interval 49.0 to 94.3%)" in findings.facts(tables)


def test_the_most_frequent_confusion_is_said_where_there_is_one(tmp_path):
    tables = load(write_run(tmp_path / "run", images=4))

    def confused(labels, predictions):
        images = tables.images.assign(label=labels, prediction=predictions)
        images["correct"] = images["label"] == images["prediction"]
        return findings.facts(changed(tables, images=images))[2:]

    taken = f"most often {name('angry')} mistaken for {name('happy')}"
    assert confused([0, 1, 0, 2], [1, 0, 1, 2]) == [f"{taken} (2 of 3 wrong)"]
    assert confused([0, 0, 1, 1], [1, 1, 0, 0]) == [f"{taken} (2 of 4 wrong, like 1 other pair)"]
    assert confused([0, 1, 2, 2], [1, 0, 2, 2]) == []  # each once: the pictures say as much
    assert confused([0, 1, 2, 2], [0, 1, 2, 2]) == []


def test_nothing_is_said_of_what_was_not_asked(tmp_path):
    run = write_run(tmp_path / "a", images=20, labels=False, scored=False, ablated=False)
    assert findings.facts(load(run)) == ["20 images"]
    assert findings.findings(load(run)) == []
    run = write_run(tmp_path / "b", images=20, ablated=False)
    assert [one.label for one in findings.findings(load(run))] == ["densest region"]
    none = load(write_run(tmp_path / "c", images=0))
    assert (findings.facts(none), findings.findings(none)) == (["0 images"], [])
    unreadable = load(write_run(tmp_path / "d", images=2, unreadable=(0, 1)))
    assert findings.facts(unreadable) == ["0 images", "2 unreadable"]
    assert findings.findings(unreadable) == []


def test_maps_without_evidence_are_counted_over_all_targets(usual):
    counted = [(value.text, value.note) for value in of(usual, "maps without evidence")]
    assert counted == [("6 of 231", "2.6%")] * 2
    full = changed(usual, maps=usual.maps.assign(evidence=True))
    assert "maps without evidence" not in [one.label for one in findings.findings(full)]


def test_the_densest_region_has_summarizes_numbers(usual):
    for value, method in zip(of(usual, "densest region"), ("GradCAM", "LayerCAM"), strict=True):
        table = usual.regions[usual.regions["method"] == method]
        shown = table[table["target"] == table["prediction"]]
        summary = regions.summarize(shown.assign(k=0), by=[], value="density")
        top = summary.loc[summary["mean"].idxmax()]
        assert value.text == f"{name(top['region'])} {top['mean']:.2f}"
        assert value.note == f"{top['low']:.2f} to {top['high']:.2f}"


def test_what_one_image_has_is_not_the_densest(usual):
    table = usual.regions.copy()
    of_one = (table["region"] == "nose") & (table["image"] != usual.images["image"].iloc[0])
    table["density"] = table["density"].mask(table["region"] == "nose", 9.0).mask(of_one)
    assert of(changed(usual, regions=table), "densest region") == of(usual, "densest region")


def test_agreement_counts_each_map_once(usual):
    table = usual.regions[usual.regions["method"] == "GradCAM"]
    shown = table[table["target"] == table["prediction"]]
    values = shown.drop_duplicates("image")["agreement"].dropna()
    found = of(usual, "heat and effect agree")[0]
    assert found.text == f"{values.mean():+.2f}"
    low, high = (float(part) for part in found.note.split(" to "))
    assert low < values.mean() < high
    spread = 1.96 * values.std() / np.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - spread, values.mean() + spread), abs=0.02)


def test_few_images_get_no_interval(tmp_path):
    tables = load(write_run(tmp_path / "two", images=2))
    assert findings.facts(tables)[1] == "2 of 2 predicted correctly"
    for one in findings.findings(tables):
        assert [value.note for value in one.values] == ["mean of 2 maps"]
    alone = load(write_run(tmp_path / "one", images=1))
    assert [v.note for one in findings.findings(alone) for v in one.values] == [""] * 2


def test_too_coarse_names_the_worst_regions(usual):
    label = "too coarse for the region"
    assert label not in [one.label for one in findings.findings(usual)]
    table = usual.regions.copy()
    eyes = (table["region"] == "eyes") & (table["method"] == "GradCAM")
    nose = (table["region"] == "nose") & (table["image"] < 40) & (table["method"] == "GradCAM")
    table["resolvable"] = ~(eyes | nose)
    coarse, other = of(changed(usual, regions=table), label)
    assert other is None
    of_method = (table["method"] == "GradCAM").sum()
    assert coarse.text == f"{100 * (eyes | nose).sum() / of_method:.1f}%"
    share = 100 * nose.sum() / ((table["region"] == "nose") & (table["method"] == "GradCAM")).sum()
    assert coarse.note == f"most often {name('eyes')} 100%, {name('nose')} {share:.0f}%"
    # An absent region is not the grid's fault.
    absent = table.assign(area=table["area"].where(table["resolvable"], 0.0))
    assert label not in [one.label for one in findings.findings(changed(usual, regions=absent))]


@pytest.mark.parametrize(
    ("column", "what"), [("label", "the true class"), (None, "each image's first target")]
)
def test_other_targets_than_predictions_are_the_shown_ones(tmp_path, column, what):
    run = write_run(tmp_path / "run", images=20)
    path = run / "shard-00000" / "maps.parquet"
    maps, images = pd.read_parquet(path), load(run).images.set_index("image")
    assert (images["label"] != images["prediction"]).any()
    maps["target"] = 99 if column is None else maps["image"].map(images[column]).astype("int64")
    maps.to_parquet(path, index=False)
    seal(run)
    tables = load(run)
    assert tables.maps["shown"].all()
    assert tables.maps.attrs["shown"] == what


def test_explainers_that_cannot_be_told_apart_are_refused(tmp_path):
    run = write_run(tmp_path / "run", images=2, methods=("GradCAM", "GradCAM"))
    with pytest.raises(ValueError, match="same method and layers"):
        load(run)


def test_faithfulness_columns_of_the_maps_are_rows_with_means(tmp_path):
    run = write_run(tmp_path / "run", images=40, methods=("GradCAM", "LayerCAM"), every_class=True)
    path = run / "shard-00000" / "maps.parquet"
    maps = pd.read_parquet(path)
    maps["deletion_auc"] = np.random.default_rng(0).random(len(maps))
    maps.loc[maps["method"] == "LayerCAM", "deletion_auc"] = np.nan
    maps.to_parquet(path, index=False)
    seal(run)
    tables = load(run)
    assert tables.measures == ["deletion_auc"]
    (found,) = [one for one in findings.findings(tables) if one.label == "deletion AUC"]
    assert found.help == "Lower is better."
    shown = tables.maps[tables.maps["shown"] & (tables.maps["method"] == "GradCAM")]
    values = shown["deletion_auc"]
    assert len(values) == 40
    assert found.values[0].text == f"{values.mean():.3f}"
    ends = [float(part) for part in found.values[0].note.split(" to ")]
    spread = 1.96 * values.std() / np.sqrt(40)
    assert ends == pytest.approx([values.mean() - spread, values.mean() + spread], abs=0.02)
    assert found.values[1] is None


def test_the_file_has_a_line_for_each_number(usual):
    rows = list(findings.records(usual, findings.findings(usual)))
    assert [row["method"] for row in rows] == ["GradCAM", "LayerCAM"] * 3
    first = of(usual, "maps without evidence")[0]
    assert (rows[0]["value"], rows[0]["layer"]) == (first.text, "features.9")
