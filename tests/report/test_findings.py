"""The sentences: their numbers are the tables', and they stay true for few images."""

import pandas as pd
import pytest

from camlens import regions
from camlens.report.findings import findings
from camlens.report.tables import load
from camlens.report.wording import name

from .made import seal, write_run


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "usual"
    return load(write_run(folder, images=80, every_class=True, empty=(3, 4), unreadable=(5, 6, 7)))


def of(tables, label):
    (found,) = [one for one in findings(tables) if one.label.startswith(label)]
    return found


def test_how_many_and_how_right(usual):
    right, wrong = usual.images["correct"].sum(), (~usual.images["correct"]).sum()
    assert (of(usual, "images").figure, of(usual, "unreadable").figure) == ("77", "3")
    accuracy = of(usual, "accuracy")
    assert accuracy.figure == f"{100 * right / 77:.1f}%"
    assert f"Of 77 labelled images, {right} are predicted right" in accuracy.text
    confidence = usual.images.groupby("correct")["confidence"].mean()
    assert f"{confidence[True]:.2f} where right and {confidence[False]:.2f}" in accuracy.text
    assert f"of {wrong} wrong predictions" in of(usual, "most frequent").text


def test_the_interval_is_wilsons(tmp_path):
    tables = load(write_run(tmp_path / "run", images=10))
    tables.images["correct"] = [True] * 8 + [False] * 2
    # Wilson 1927 by hand: z = 1.96, p = 0.8, n = 10.
    assert "(95% interval 49.0 to 94.3%)" in of(tables, "accuracy").text


def test_the_most_frequent_confusion(usual):
    wrong = usual.images[~usual.images["correct"].astype(bool)]
    pairs = wrong.groupby(["label", "prediction"]).size()
    label, prediction = pairs.idxmax()
    found = of(usual, "most frequent")
    assert found.figure == str(pairs.max())
    taken = f"{name(usual.class_name(label))} is taken for {name(usual.class_name(prediction))}"
    assert taken in found.text


def test_equally_frequent_confusions_are_said_to_be(tmp_path):
    tables = load(write_run(tmp_path / "run", images=4))
    tables.images["label"] = [0, 1, 0, 2]
    tables.images["prediction"] = [1, 0, 1, 2]
    tables.images["correct"] = tables.images["label"] == tables.images["prediction"]
    found = of(tables, "most frequent")
    assert found.text.startswith(f"Most often {name('angry')} is taken for {name('happy')}: in 2")
    rest = type(tables)(**{**vars(tables), "images": tables.images.iloc[1:]})
    found = of(rest, "most frequent")
    assert found.text.startswith("2 confusions are equally frequent, with 1 image each, 50% of 2")


def test_maps_without_evidence_are_counted_over_all_targets(usual):
    found = of(usual, "maps without evidence")
    assert found.figure == "2.6%"
    assert found.text == "6 of 231 maps hold no evidence for the target."
    assert found.kind == "warning"
    assert found.about == "GradCAM at features.9, grid 12x12"


def test_the_densest_region_has_summarizes_numbers(usual):
    shown = usual.regions[usual.regions["target"] == usual.regions["prediction"]]
    summary = regions.summarize(shown.assign(k=0), by=[], value="density")
    top = summary.loc[summary["mean"].idxmax()]
    found = of(usual, "densest")
    assert found.figure == f"{top['mean']:.2f}"
    assert found.label == f"densest: {name(top['region'])}"
    low, high = top["low"], top["high"]
    interval = f"with {top['mean']:.2f} (95% interval {low:.2f} to {high:.2f})"
    assert f"In the maps of the predicted class, heat is densest on {name(top['region'])} " in (
        found.text
    )
    assert interval in found.text


def test_what_one_image_has_is_not_the_headline(usual):
    table = usual.regions.copy()
    of_one = (table["region"] == "nose") & (table["image"] != usual.images["image"].iloc[0])
    table["density"] = table["density"].mask(table["region"] == "nose", 9.0).mask(of_one)
    changed = type(usual)(**{**vars(usual), "regions": table})
    before, found = of(usual, "densest"), of(changed, "densest")
    assert name("nose") not in before.label
    assert (found.figure, found.label) == (before.figure, before.label)
    assert name("nose") not in found.text
    assert "Left out: 1 region with fewer than 10 maps." in found.text


def test_agreement_counts_each_map_once(usual):
    shown = usual.regions[usual.regions["target"] == usual.regions["prediction"]]
    values = shown.drop_duplicates("image")["agreement"].dropna()
    found = of(usual, "heat and effect agree")
    assert found.figure == f"{values.mean():+.2f}"
    assert f"{len(values)} maps)" in found.text
    assert f"above 0 in {(values > 0).sum()} of them" in found.text
    assert "Of 2 further maps it is unknown." in found.text


def test_two_images_get_no_interval(tmp_path):
    found = findings(load(write_run(tmp_path / "run", images=2)))
    said = " ".join(one.text for one in found)
    assert "95% interval" not in said
    assert said.count("too few") == 3  # accuracy, density and agreement
    assert said.count("(mean of 2 maps)") == 2  # of the densest and the thinnest
    assert "These are too few maps for an interval." in said


def test_a_single_image(tmp_path):
    found = findings(load(write_run(tmp_path / "run", images=1)))
    assert found[0].text == "1 image was explained, with labels of 1 class. None was unreadable."
    assert "Of 1 labelled image, 1 is predicted right" in found[1].text


def test_no_labels_no_regions_no_images(tmp_path):
    run = write_run(tmp_path / "a", images=3, labels=False, scored=False, ablated=False)
    found = {one.label: one for one in findings(load(run))}
    assert found["accuracy"].figure == "unknown"
    assert found["density of heat"].figure == "no regions"
    (alone,) = findings(load(write_run(tmp_path / "b", images=0)))
    assert alone.text == "0 images were explained. None was unreadable."


def test_all_unreadable(tmp_path):
    found = findings(load(write_run(tmp_path / "run", images=2, unreadable=(0, 1))))
    assert [one.figure for one in found] == ["0", "2"]


def test_too_coarse_names_the_worst_regions(usual):
    assert of(usual, "too coarse").figure == "0%"
    table = usual.regions.copy()
    coarse = (table["region"] == "eyes") | ((table["region"] == "nose") & (table["image"] < 40))
    table["resolvable"] = ~coarse
    changed = type(usual)(**{**vars(usual), "regions": table})
    found = of(changed, "too coarse")
    assert f"In {coarse.sum()} of {len(table):,} pairs of a map and a region" in found.text
    share = 100 * (table.loc[table["region"] == "nose", "image"] < 40).mean()
    assert (
        f"Most often: {name('eyes')} 100%, {name('nose')} {share:.0f}% of the maps." in found.text
    )
    assert "no region at all" not in found.text


def test_an_absent_region_is_not_the_grids_fault(usual):
    table = usual.regions.copy()
    absent = table["region"] == "eyes"
    table.loc[absent, ["area", "resolvable"]] = [0.0, False]
    assert of(type(usual)(**{**vars(usual), "regions": table}), "too coarse").figure == "0%"


@pytest.mark.parametrize(
    ("column", "what"), [("label", "the true class"), (None, "each image's first target")]
)
def test_other_targets_than_predictions_are_named(tmp_path, column, what):
    run = write_run(tmp_path / "run", images=20)
    path = run / "shard-00000" / "maps.parquet"
    maps, images = pd.read_parquet(path), load(run).images.set_index("image")
    assert (images["label"] != images["prediction"]).any()
    maps["target"] = 99 if column is None else maps["image"].map(images[column]).astype("int64")
    maps.to_parquet(path, index=False)
    seal(run)
    tables = load(run)
    assert tables.maps["shown"].all()
    assert f"In the maps of {what}, heat is densest" in of(tables, "densest").text


def test_explainers_that_cannot_be_told_apart_are_refused(tmp_path):
    run = write_run(tmp_path / "run", images=2, methods=("GradCAM", "GradCAM"))
    with pytest.raises(ValueError, match="same method and layers"):
        load(run)
