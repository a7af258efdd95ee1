"""Statistics of tables: scipy's numbers, known answers, and what cannot be said is said."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from camlens.regions.intervals import Resampling, corrected
from camlens.regions.statistics import compare, differences, summarize
from camlens.regions.tables import table

from .made import ablation_of, noise, scores_of

FEW = {"resamples": 200}


def labelled(density, labels, **options):
    return table(scores_of(density), labels=labels, **options)


def halves(n):
    return [0] * (n // 2) + [1] * (n - n // 2)


def at(found, **values):
    """The one row of the given values."""
    rows = found
    for name, value in values.items():
        rows = rows[rows[name] == value]
    assert len(rows) == 1
    return rows.iloc[0]


# --- the resampling is scipy's ------------------------------------------------------------


def test_intervals_are_those_of_scipy_region_by_region():
    values, rest = noise(40, 3).double().numpy(), noise(70, 3, seed=1).double().numpy()
    how = Resampling(resamples=500, seed=5, confidence=0.9)
    options = {"method": "percentile", "confidence_level": 0.9, "n_resamples": 500}

    def lift(a, b, axis):
        return a.mean(axis) / ((a.sum(axis) + b.sum(axis)) / 110)

    def difference(a, b, axis):
        return a.mean(axis) - b.mean(axis)

    for region in range(3):
        a, b = values[:, region], rest[:, region]
        for samples, statistic, found in (
            ((a,), np.mean, how.mean(values)),
            ((a, b), lift, how.lift(values, rest)),
            ((a, b), difference, how.difference(values, rest)),
        ):
            expected = stats.bootstrap(samples, statistic, rng=np.random.default_rng(5), **options)
            np.testing.assert_allclose(found[:, region], expected.confidence_interval, rtol=1e-12)


def test_p_values_are_those_of_scipy_region_by_region():
    a, b = noise(15, 3).double().numpy(), noise(20, 3, seed=1).double().numpy() + 0.2
    how = Resampling(resamples=500, seed=5)

    def difference(a, b, axis):
        return a.mean(axis) - b.mean(axis)

    groups, pairs = how.p_of_groups(a, b), how.p_of_pairs(a - b[:15])
    for i in range(3):
        expected = stats.permutation_test(
            (a[:, i], b[:, i]), difference, n_resamples=500, rng=np.random.default_rng(5)
        )
        assert groups[i] == expected.pvalue
        expected = stats.permutation_test(
            (a[:, i] - b[:15, i],),
            np.mean,
            permutation_type="samples",
            n_resamples=500,
            rng=np.random.default_rng(5),
        )
        assert pairs[i] == expected.pvalue


def test_small_samples_are_tested_exactly():
    """All of a above all of b: 2 of the C(6, 3) = 20 divisions, and of the 2**5 signs."""
    how = Resampling(resamples=999, seed=0, min_images=2)
    a, b = np.array([[4.0], [5], [6]]), np.array([[1.0], [2], [3]])
    assert how.p_of_groups(a, b)[0] == pytest.approx(2 / 20)
    assert how.p_of_pairs(np.array([[1.0], [2], [3], [4], [5]]))[0] == pytest.approx(2 / 32)


def test_what_is_the_same_everywhere_is_no_difference():
    """Sums of 0.1 differ in the last digit, which would give p = 0.004."""
    same = np.full((300, 1), 0.1)
    how = Resampling(resamples=499, seed=0)
    assert how.p_of_groups(same, np.full((301, 1), 0.1))[0] == 1
    assert how.p_of_pairs(same - same)[0] == 1
    np.testing.assert_allclose(how.difference(same, same), 0, atol=1e-15)


def test_batches_of_draws_leave_the_interval_where_it_was(monkeypatch):
    values = noise(50, 2).double().numpy()
    whole = Resampling(resamples=2000, seed=0).mean(values)
    monkeypatch.setattr("camlens.regions.intervals._AT_ONCE", 1000)
    np.testing.assert_allclose(Resampling(resamples=2000, seed=0).mean(values), whole, rtol=1e-12)


def test_correction_after_benjamini_and_hochberg_by_hand():
    p = np.array([0.01, np.nan, 0.02, 0.04, 0.5])
    np.testing.assert_allclose(corrected(p), [0.04, np.nan, 0.04, 0.16 / 3, 0.5])
    assert np.isnan(corrected(np.array([np.nan]))).all()


@pytest.mark.parametrize("option", [{"resamples": 0}, {"min_images": 1}, {"confidence": 1.0}])
def test_options_out_of_range(option):
    with pytest.raises(ValueError, match="resamples of at least 1, min_images of at least 2"):
        summarize(labelled(noise(4, 1, 1), [0] * 4), **option)


# --- summarize ----------------------------------------------------------------------------


def test_means_counts_and_lift_by_hand():
    density = torch.tensor([1.0, 3, 2, 2, 6, 10, 5, 7]).view(8, 1, 1)
    found = summarize(labelled(density, halves(8)), min_images=2, **FEW)
    assert found["label"].tolist() == [0, 1]
    assert found["mean"].tolist() == [2, 7]
    assert found["n"].tolist() == [4, 4]
    np.testing.assert_allclose(found["lift"], [2 / 4.5, 7 / 4.5])
    assert (found["low"] < found["mean"]).all()
    assert (found["mean"] < found["high"]).all()
    assert found["lift_high"][0] < 1 < found["lift_low"][1]
    assert found["value"].tolist() == ["density"] * 2
    assert found["note"].tolist() == ["", ""]
    names = "label method layer grid k region value n missing mean low high lift lift_low lift_high"
    assert list(found.columns) == [*names.split(), "enough", "note"]


def test_the_interval_is_about_two_standard_errors():
    density = noise(2000, 1, 1)
    row = summarize(labelled(density, [0] * 2000)).iloc[0]
    error = density.std().item() / 2000**0.5
    assert row["low"] == pytest.approx(row["mean"] - 1.96 * error, abs=0.15 * error)
    assert row["high"] == pytest.approx(row["mean"] + 1.96 * error, abs=0.15 * error)


def test_a_bias_that_all_classes_share_has_no_lift():
    """Density alone would call the nose evidence for both classes."""
    density = noise(400, 1, 2) * torch.tensor([2.5, 1.0])
    density[200:, :, 1] *= 3
    found = summarize(labelled(density, halves(400)), **FEW)
    nose, mouth = (at(found, label=1, region=f"region{i}") for i in (0, 1))
    assert nose["low"] > 2
    assert nose["lift_low"] < 1 < nose["lift_high"]
    assert mouth["lift_low"] > 1.3
    assert at(found, label=0, region="region1")["lift_high"] < 0.7


def test_settings_and_places_of_targets_are_never_mixed():
    density = torch.stack([torch.full((20, 1), 1.0), torch.full((20, 1), 2.0)], dim=1)
    first = table(scores_of(density), labels=halves(20))
    other = table(scores_of(density * 10, layers=("features.25",)), labels=halves(20))
    found = summarize(pd.concat([first, other]), **FEW)
    assert len(found) == 2 * 2 * 2
    assert set(found["n"]) == {10}
    means = found.groupby(["layer", "k"])["mean"].unique().map(list).to_dict()
    assert means == {
        ("features.34", 0): [1],
        ("features.34", 1): [2],
        ("features.25", 0): [10],
        ("features.25", 1): [20],
    }
    assert set(found["lift"]) == {1}


def test_several_columns_split_right_from_wrong_and_who_is_taken_for_whom():
    density = torch.arange(40.0).view(40, 1, 1)
    labels, predictions = halves(40), [0, 1] * 20
    rows = labelled(density, labels, predictions=predictions, classes=["fear", "surprise"])
    found = summarize(rows, by=["label", "prediction"], **FEW)
    assert at(found, label="fear", prediction="surprise")["mean"] == np.arange(1, 20, 2).mean()
    right = summarize(rows, by=["label", "correct"], **FEW)
    assert at(right, label="fear", correct=False)["mean"] == np.arange(1, 20, 2).mean()
    assert right["n"].tolist() == [10] * 4
    assert summarize(rows, by=[], **FEW)["mean"].tolist() == [19.5]


def test_a_small_group_has_a_mean_and_says_that_it_is_small():
    found = summarize(labelled(noise(21, 1, 2), [0] * 20 + [1]), **FEW)
    small, large = at(found, label=1, region="region0"), at(found, label=0, region="region0")
    assert small["n"] == 1
    assert not small["enough"]
    assert small["note"] == "only 1 image"
    assert np.isfinite(small["mean"])
    assert small[["low", "high", "lift", "lift_low", "lift_high"]].isna().all()
    assert np.isfinite(large["lift"])
    assert np.isnan(large["lift_low"])
    assert large["note"] == "only 1 image in other groups"


def test_one_class_only_has_a_lift_of_one_by_definition():
    found = summarize(labelled(noise(20, 1, 2), [3] * 20), **FEW)
    assert found[["lift", "lift_low", "lift_high"]].eq(1).all(axis=None)
    assert set(found["note"]) == {"no other group: lift is 1 by definition"}
    assert found["enough"].all()


def test_missing_numbers_are_counted_and_say_why():
    resolvable = torch.ones(40, 1, 3, dtype=torch.bool)
    resolvable[..., 1] = False
    resolvable[:5, :, 2] = False
    evidence = torch.ones(40, 1, dtype=torch.bool)
    evidence[20:] = False
    scores = scores_of(noise(40, 1, 3), resolvable=resolvable, evidence=evidence)
    found = summarize(table(scores, labels=halves(40)), **FEW)
    notes = found.set_index(["label", "region"])["note"].to_dict()
    assert notes == {
        (0, "region0"): "no other group: lift is 1 by definition",
        (0, "region1"): "not resolvable",
        (0, "region2"): "no other group: lift is 1 by definition",
        (1, "region0"): "no evidence",
        (1, "region1"): "not resolvable",
        (1, "region2"): "no evidence",
    }
    assert found["n"].tolist() == [20, 0, 15, 0, 0, 0]
    assert found["missing"].tolist() == [0, 20, 5, 20, 20, 20]
    expected = scores.density[5:20, 0, 2].double().mean().item()
    assert at(found, label=0, region="region2")["mean"] == pytest.approx(expected)


def test_a_value_that_never_occurs_has_no_lift():
    found = summarize(labelled(noise(20, 1, 1) / 4, halves(20)), value="pointing_game", **FEW)
    assert found["mean"].tolist() == [0, 0]
    assert found["lift"].isna().all()
    assert set(found["note"]) == {"0 in all groups: no lift"}


def test_a_value_that_hardly_ever_occurs_has_an_interval_up_to_1():
    density = torch.zeros(40, 1, 1)
    density[0] = 2
    found = summarize(labelled(density, halves(40)), value="pointing_game", **FEW)
    assert found["lift"].tolist() == [2, 0]
    assert found["lift_low"].tolist() == [1, 0]  # 1 where a draw misses it
    assert found["lift_high"].tolist() == [2, 1]


def test_an_ablation_has_no_lift_and_needs_no_resolvable_map():
    scores = scores_of(noise(20, 1, 1), resolvable=torch.zeros(20, 1, 1, dtype=torch.bool))
    drop = torch.arange(20.0).view(20, 1, 1)
    rows = table(scores, ablation=ablation_of(drop, 0.5), labels=halves(20))
    found = summarize(rows, value="excess", **FEW)
    assert found["mean"].tolist() == [4, 14]
    assert found["lift"].isna().all()
    assert found["note"].tolist() == ["", ""]
    assert found["infill"].tolist() == ["blur", "blur"]
    rows["excess"] = np.nan
    assert set(summarize(rows, value="excess", **FEW)["note"]) == {"no value"}


def test_a_seed_decides_and_the_order_of_rows_does_not():
    rows = labelled(noise(40, 2, 2), halves(40))
    found = summarize(rows, **FEW)
    pd.testing.assert_frame_equal(found, summarize(rows.copy(), **FEW))
    upside_down = summarize(rows.sort_values("image", ascending=False), **FEW)
    pd.testing.assert_frame_equal(found, upside_down)
    assert not found["low"].equals(summarize(rows, seed=1, **FEW)["low"])


def test_rows_without_a_label_are_in_no_group():
    found = summarize(labelled(torch.arange(30.0).view(30, 1, 1), [0] * 20 + [-1] * 10), **FEW)
    assert found["label"].tolist() == [0]
    assert found["mean"].tolist() == [9.5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "label"}, r"each row lacks one: make the table with table\(scores, labels="),
        ({"by": "emotion"}, r"no columns \['emotion'\]"),
        ({"by": "method"}, r"expected no \['method'\] in by"),
        ({"by": ["k", "region"]}, r"expected no \['k', 'region'\] in by"),
        ({"by": [], "value": "excess"}, r"make the table with .*ablation=\.\.\."),
        ({"by": [], "value": "region"}, "expected numbers in the column 'region', got string"),
    ],
)
def test_columns_that_do_not_serve(options, message):
    with pytest.raises(ValueError, match=message):
        summarize(table(scores_of(noise(12, 1, 1))), **options)


def test_rows_that_are_not_independent():
    rows = labelled(noise(12, 1, 2), [0] * 12)
    with pytest.raises(ValueError, match="image 0 has several rows of the same setting"):
        summarize(pd.concat([rows, rows]), **FEW)
    rows["half"] = rows["region"]
    with pytest.raises(ValueError, match="image 0 is in several groups"):
        summarize(rows, by="half", **FEW)
    with pytest.raises(ValueError, match="expected a table with rows, got none"):
        summarize(rows[:0], **FEW)


@pytest.mark.slow
def test_a_whole_data_set_without_a_difference():
    """3,589 images, 8 regions, 2 targets, a method."""
    labels = torch.arange(3589) % 7
    found = summarize(table(scores_of(noise(3589, 2, 8)), labels=labels))
    assert len(found) == 7 * 2 * 8
    assert found["lift"].between(0.9, 1.1).all()
    covered = (found["lift_low"] <= 1) & (found["lift_high"] >= 1)
    assert 0.9 < covered.mean() < 1  # of 95% intervals


# --- differences --------------------------------------------------------------------------


def test_differences_find_the_planted_one_and_only_that():
    density = noise(150, 1, 2)
    density[100:, :, 1] += 1.5
    labels = [0] * 50 + [1] * 50 + [2] * 50
    found = differences(labelled(density, labels, classes=["a", "b", "c"]), resamples=999)
    pairs = list(zip(found["a"], found["b"], found["region"], strict=True))
    regions = ("region0", "region1")
    expected = [(*ab, r) for ab in (("a", "b"), ("a", "c"), ("b", "c")) for r in regions]
    assert pairs == expected
    planted = (found["b"] == "c") & (found["region"] == "region1")
    np.testing.assert_allclose(found["p"][planted], 2 / 1000)  # the least there can be
    np.testing.assert_allclose(found["p_corrected"][planted], 2 / 1000 * 6 / 2)
    assert (found["p_corrected"][~planted] > 0.05).all()
    row = at(found, a="a", b="c", region="region1")
    expected = (density[:50, 0, 1].double().mean() - density[100:, 0, 1].double().mean()).item()
    assert row["difference"] == pytest.approx(expected)
    assert row["low"] < row["difference"] < row["high"] < 0
    np.testing.assert_allclose(found["p_corrected"], stats.false_discovery_control(found["p"]))


def test_differences_of_small_groups_are_not_tested_nor_counted():
    rows = labelled(noise(45, 1, 1), [0] * 20 + [1] * 20 + [2] * 5)
    found = differences(rows, resamples=99)
    assert found["note"].tolist() == ["", "only 5 images", "only 5 images"]
    assert found["p"].isna().tolist() == [False, True, True]
    assert np.isfinite(found["difference"]).all()
    assert found["p_corrected"][0] == found["p"][0]
    assert found[["n_a", "n_b"]].to_numpy().tolist() == [[20, 20], [20, 5], [20, 5]]


def test_differences_of_several_columns_and_settings():
    rows = labelled(noise(80, 2, 1), halves(80), predictions=[0, 1] * 40)
    found = differences(rows, by=["label", "correct"], resamples=99)
    assert len(found) == 6 * 2
    assert found["a"][0] == "0 / False"
    assert found["b"][0] == "0 / True"
    assert found["k"].tolist() == [0] * 6 + [1] * 6


def test_differences_need_two_groups():
    with pytest.raises(ValueError, match="two groups by 'label' to compare, got only"):
        differences(labelled(noise(20, 1, 1), [0] * 20))


# --- compare ------------------------------------------------------------------------------


def test_pairs_tell_what_groups_cannot():
    """A small shift of every image, far below the spread between images."""
    base, shift = noise(60, 1, 2), 0.02 * noise(60, 1, 1, seed=1)
    a = labelled(base + torch.cat([shift, 0 * shift], dim=-1), halves(60))
    b = table(scores_of(base, method="LayerCAM"), labels=halves(60))
    found = compare(a, b, resamples=999)
    names = "k region n mean_a mean_b difference low high p p_corrected note"
    assert list(found.columns) == names.split()
    shifted, same = found.iloc[0], found.iloc[1]
    assert shifted["difference"] == pytest.approx(shift.mean().item(), rel=1e-4)
    assert 0 < shifted["low"] < shifted["difference"] < shifted["high"]
    assert shifted["p"] == pytest.approx(2 / 1000)
    assert shifted["p_corrected"] == pytest.approx(4 / 1000)
    assert same["difference"] == 0
    assert same["p"] == 1
    assert found["n"].tolist() == [60, 60]


def test_compare_pairs_by_image_whatever_the_order():
    a = labelled(torch.arange(20.0).view(20, 1, 1), halves(20))
    b = labelled(torch.arange(20.0).view(20, 1, 1) - 3, halves(20))[::-1]
    found = compare(a, b, by="label", **FEW)
    assert found["label"].tolist() == [0, 1]
    assert found["mean_a"].tolist() == [4.5, 14.5]
    assert found["difference"].tolist() == found["low"].tolist() == [3, 3]
    assert found["n"].tolist() == [10, 10]


def test_compare_takes_rounding_for_equality():
    # GradCAM and HiResCAM agree before a mean and a linear layer; the last bits do not.
    density = noise(30, 1, 1).abs() + 1
    a, b = (labelled(density * factor, halves(30)) for factor in (1, 1 + 3e-7))
    (row,) = compare(a, b, **FEW).to_dict("records")
    assert (row["difference"], row["low"], row["high"], row["p"]) == (0, 0, 0, 1)
    (row,) = compare(a, labelled(density * 1.001, halves(30)), **FEW).to_dict("records")
    assert row["difference"] == pytest.approx(-1e-3 * density.mean().item(), rel=1e-4)
    assert row["p"] < 0.01


def test_compare_uses_images_that_both_can_tell():
    resolvable = torch.ones(30, 1, 2, dtype=torch.bool)
    resolvable[:10, :, 0] = False
    resolvable[..., 1] = False
    a, b = (
        table(scores_of(noise(30, 1, 2), resolvable=resolvable)),
        table(scores_of(noise(30, 1, 2))),
    )
    found = compare(a, b, **FEW)
    assert found["n"].tolist() == [20, 0]
    assert found["note"].tolist() == ["", "not resolvable"]
    assert found["p"].isna().tolist() == [False, True]
    few = compare(a, b, min_images=21, **FEW)
    assert few["note"][0] == "only 20 images"
    assert few["mean_a"][0] == few["mean_b"][0]


def test_compare_what_cannot_be_paired():
    a, b = (labelled(noise(12, 1, 2), [i] * 12) for i in (0, 1))
    with pytest.raises(
        ValueError, match=r"'image' in both tables, but table_b lacks 0, 1, 2, 3, 4"
    ):
        compare(a, b[b["image"] > 5])
    with pytest.raises(ValueError, match="'region' in both tables, but table_a lacks region1"):
        compare(a[a["region"] == "region0"], b)
    with pytest.raises(ValueError, match="one row for each image, k and region in both tables"):
        compare(a, b[1:])
    with pytest.raises(ValueError, match="expected the same 'label' of each image"):
        compare(a, b, by="label")
    other = table(scores_of(noise(12, 1, 2), method="LayerCAM"))
    with pytest.raises(
        ValueError, match=r"expected table_b of one setting, got .*LayerCAM.*filter"
    ):
        compare(a, pd.concat([b, other]))
