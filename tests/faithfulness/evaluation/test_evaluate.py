"""A table of methods by metrics: the numbers of direct calls, whatever the batches."""

import functools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import camlens
from camlens import faithfulness, targets
from camlens.dataset import Sample
from camlens.faithfulness import Evaluation, MetricResult, deletion, evaluate, insertion
from camlens.faithfulness.evaluation.measurements import CURVE_POINTS
from camlens.regions import Regions
from tests.faithfulness.metrics import convolutional, images

from ...html_tables import Table

FLOORS = ("random", "centre")


@pytest.fixture(scope="module")
def net():
    return convolutional()


@pytest.fixture(scope="module")
def explainers(net):
    return {"cam": camlens.GradCAM(net, "1"), "saliency": camlens.Saliency(net)}


@pytest.fixture(scope="module")
def pictures():
    return images(5)


@pytest.fixture(scope="module")
def found(net, explainers, pictures):
    return evaluate(explainers, net, pictures, floors=FLOORS, batch_size=2, seed=3)


@pytest.fixture
def given(net, explainers, pictures):
    return {"explainers": explainers, "model": net, "dataset": pictures}


def direct(net, explainer, pictures, metric=deletion, **options):
    options = {"floors": FLOORS, "seed": 3, **options}
    return metric(net, pictures, explainer(pictures), **options)


@pytest.mark.parametrize("shown", [True, False])
def test_progress_is_of_images_and_of_each_metrics_passes(given, capsys, shown):
    evaluate(**given, metrics=["deletion"], floors=(), progress=shown)
    said = capsys.readouterr().err
    assert [f"{label}: " in said for label in ("evaluate", "deletion")] == [shown] * 2


@pytest.mark.parametrize("metric", [deletion, insertion])
@pytest.mark.parametrize("method", ["cam", "saliency"])
def test_the_numbers_are_those_of_the_metric(found, given, metric, method):
    expected = direct(given["model"], given["explainers"][method], given["dataset"], metric)
    own = found.values.query("method == @method and metric == @metric.__name__")
    assert own["image"].tolist() == [*range(5)]
    assert own["value"].tolist() == pytest.approx(expected.values[:, 0].tolist(), abs=1e-6)
    for name in FLOORS:
        floor = expected.floor_values[name][:, 0].tolist()
        assert own[f"floor_{name}"].tolist() == pytest.approx(floor, abs=1e-6)
    (row,) = found.table.query("method == @method and metric == @metric.__name__").to_dict(
        "records"
    )
    assert (row["better"], row["images"]) == (expected.better, 5)
    assert [row["mean"], row["low"], row["high"]] == pytest.approx(
        [expected.mean, *expected.interval], abs=1e-6
    )
    above = expected.above_floor
    assert [row["above_floor"], row["above_low"], row["above_high"]] == pytest.approx(
        [*above[:3]], abs=1e-6
    )
    assert (row["best_floor"], row["clear"]) == (above.floor, above.clear)
    for name in FLOORS:
        assert row[f"floor_{name}"] == pytest.approx(expected.floors[name].mean, abs=1e-6)


def test_curves_are_means_over_images(found, net, explainers, pictures):
    expected = direct(net, explainers["cam"], pictures)
    own = found.curves.query("method == 'cam' and metric == 'deletion'")
    shares = np.linspace(0, 1, CURVE_POINTS)
    assert own["share"].tolist() == pytest.approx(shares.tolist())
    mean = expected.curve[:, 0].mean(dim=0).numpy()
    assert own["mean"].tolist() == pytest.approx(
        np.interp(shares, expected.steps.numpy(), mean).tolist(), abs=1e-6
    )
    assert (own["low"] <= own["mean"] + 1e-9).all()
    assert (own["mean"] <= own["high"] + 1e-9).all()


def test_the_batch_size_does_not_matter(found, net, explainers, pictures):
    whole = evaluate(explainers, net, pictures, floors=FLOORS, batch_size=5, seed=3)
    columns = ["value", "floor_random", "floor_centre"]
    assert np.allclose(whole.values[columns], found.values[columns], atol=1e-6)
    assert whole.values.drop(columns=columns).equals(found.values.drop(columns=columns))


class Stream(IterableDataset):
    def __init__(self, pictures):
        self.pictures = pictures

    def __iter__(self):
        return iter(self.pictures)


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        lambda x: [*x],
        lambda x: [(one, 0) for one in x],
        lambda x: [Sample(one, 1) for one in x],
        TensorDataset,
        lambda x: DataLoader(TensorDataset(x, torch.arange(5) % 4), batch_size=3),
        lambda x: iter([x[:4], x[4:]]),
        lambda x: iter([(x[:4], [0, 1, 2, 3]), (x[4:], None)]),
        Stream,
    ],
)
def test_data_sets_of_any_kind(found, net, explainers, pictures, given):
    again = evaluate(explainers, net, given(pictures), floors=FLOORS, batch_size=2, seed=3)
    assert np.allclose(again.values["value"], found.values["value"], atol=1e-6)


def test_floors_are_computed_once(net, explainers, pictures):
    runs = []

    def counted(model, images, explanation, **options):
        runs.append(options["floors"])
        return deletion(model, images, explanation, **options)

    both = evaluate(explainers, net, pictures[:2], metrics=[counted], floors=FLOORS)
    assert runs == [FLOORS, ()]
    rows = both.values.set_index(["method", "image"])
    for name in FLOORS:
        cam, saliency = (rows.loc[one, f"floor_{name}"].tolist() for one in ("cam", "saliency"))
        assert cam == saliency
    assert (both.table["seconds"] > 0).all()
    assert (both.table["floor_seconds"] > 0).all()
    alone = evaluate({"saliency": explainers["saliency"]}, net, pictures[:2], metrics=[counted])
    assert alone.values["floor_random"].tolist() == rows.loc["saliency", "floor_random"].tolist()


def test_several_targets_are_as_many_calls(net, explainers, pictures):
    wanted = torch.tensor([[0, 2], [1, 3], [2, 0], [3, 1], [0, 1]])
    both = evaluate(explainers, net, pictures, targets=wanted, floors=(), batch_size=2)
    rows = both.values.query("metric == 'insertion' and method == 'cam'")
    assert rows["target"].tolist() == wanted.flatten().tolist()
    for k in range(2):
        own = evaluate(explainers, net, pictures, targets=wanted[:, k], floors=())
        expected = own.values.query("metric == 'insertion' and method == 'cam'")["value"]
        assert rows.query("k == @k")["value"].tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    assert both.table["images"].tolist() == [5] * 4
    means = rows.groupby("image")["value"].mean().mean()
    assert both.table.query("metric == 'insertion' and method == 'cam'")["mean"].item() == (
        pytest.approx(means)
    )


def test_labels_are_targets(net, explainers, pictures):
    pairs = [(picture, 3 - place % 4) for place, picture in enumerate(pictures)]
    own = evaluate(explainers, net, pairs, targets="label", metrics=["deletion"], floors=())
    assert own.values.query("method == 'cam'")["target"].tolist() == [3, 2, 1, 0, 3]
    with pytest.raises(ValueError, match="'0' has no label"):
        evaluate(explainers, net, pictures, targets="label", metrics=["deletion"])


def test_scores_of_a_callable(net, explainers, pictures):
    contrast = targets.contrast(0, 1)
    own = evaluate(explainers, net, pictures, targets=contrast, metrics=["deletion"], floors=())
    explanation = explainers["cam"](pictures, targets=contrast)
    expected = deletion(net, pictures, explanation, targets=contrast, floors=())
    rows = own.values.query("method == 'cam'")
    assert rows["target"].tolist() == [-1] * 5
    assert rows["value"].tolist() == pytest.approx(expected.values[:, 0].tolist(), abs=1e-5)


def test_metrics_that_call_the_explainer(net, explainers, pictures):
    metrics = {"change": functools.partial(faithfulness.sensitivity, samples=2)}
    both = evaluate(explainers, net, pictures[:2], metrics=metrics, floors=FLOORS)
    for method, explainer in explainers.items():
        asked = explainer(pictures[:2]).targets
        expected = faithfulness.sensitivity(
            net, pictures[:2], explainer, samples=2, targets=asked, floors=FLOORS
        )
        rows = both.values[both.values["method"] == method]
        assert rows["value"].tolist() == pytest.approx(expected.values[:, 0].tolist(), abs=1e-5)
        for name, floor in expected.floor_values.items():
            assert rows[f"floor_{name}"].tolist() == pytest.approx(floor[:, 0].tolist(), abs=1e-5)


@pytest.mark.parametrize("kind", ["boxes", "masks", "regions"])
def test_localization_is_told_where_the_objects_are(net, explainers, pictures, kind):
    boxes = torch.tensor([[1, 2, 1 + place, 8] for place in range(1, 6)], dtype=torch.float32)
    every = Regions.from_boxes(["object"], boxes.unsqueeze(1), (12, 12))
    places = {
        "boxes": [*boxes],
        "masks": [*every.masks[:, 0]],
        "regions": [every.of_images(slice(i, i + 1)) for i in range(5)],
    }[kind]
    triples = [(picture, 0, place) for picture, place in zip(pictures, places, strict=True)]
    own = evaluate(
        explainers, net, triples, metrics=["energy_pointing_game"], floors=FLOORS, batch_size=2
    )
    for method, explainer in explainers.items():
        expected = faithfulness.energy_pointing_game(
            None, pictures, explainer(pictures), every, floors=FLOORS
        )
        rows = own.values[own.values["method"] == method]
        assert rows["value"].tolist() == pytest.approx(expected.values[:, 0].tolist(), abs=1e-6)
    batch = iter([(pictures, None, boxes)])
    again = evaluate(explainers, net, batch, metrics=["energy_pointing_game"], floors=FLOORS)
    assert again.values["value"].tolist() == pytest.approx(own.values["value"].tolist(), abs=1e-6)


def test_images_of_several_sizes(net, explainers):
    mixed = [images(1, size)[0] for size in (12, 8, 8, 12)]
    own = evaluate(explainers, net, mixed, metrics=["deletion"], floors=())
    rows = own.values.query("method == 'cam'")
    expected = [
        deletion(net, one[None], explainers["cam"](one[None]), first=place, floors=()).mean
        for place, one in enumerate(mixed)
    ]
    assert rows["value"].tolist() == pytest.approx(expected, abs=1e-6)
    assert len(own.curves) == 2 * CURVE_POINTS


def test_values_that_are_unknown_are_left_out(net, explainers, pictures):
    def half(model, images, explanation, **options):
        values = torch.arange(len(images)).float().unsqueeze(1)
        return MetricResult(
            metric="half",
            values=values.where(values % 2 == 0, torch.nan),
            better="higher",
            floor_values={name: torch.zeros_like(values) for name in options["floors"]},
        )

    own = evaluate(explainers, net, pictures, metrics=[half], floors=("random",))
    assert own.table["images"].tolist() == [3, 3]
    assert own.table["mean"].tolist() == [2, 2]
    assert own.table["above_floor"].tolist() == [2, 2]
    assert own.curves.empty


def test_one_image_has_no_interval(net, explainers, pictures):
    own = evaluate(explainers, net, pictures[:1], metrics=["deletion"], floors=("random",))
    row = own.table.iloc[0]
    assert np.isfinite(row["mean"])
    assert np.isnan([row["low"], row["high"], row["above_low"]]).all()
    assert not row["clear"]
    none = evaluate(explainers, net, pictures[:2], metrics=["deletion"], floors=())
    assert none.table["above_floor"].isna().all()
    assert none.table["best_floor"].tolist() == ["", ""]


def made(means, better):
    """Values of methods by metrics: ``means[metric]`` of each method, the same for all images."""
    rows = [
        {"image": image, "k": 0, "target": 0, "method": f"m{m}", "metric": metric}
        | {"better": better[metric], "value": value[image] if np.ndim(value) else value}
        for metric, values in means.items()
        for m, value in enumerate(values)
        for image in range(4)
    ]
    table = pd.DataFrame(rows).assign(curve=None, curve_from=np.nan, curve_to=np.nan)
    return Evaluation.of_rows(table)


def test_agreement_over_methods_is_the_rank_correlation_of_their_means():
    means = {"a": [0.1, 0.5, 0.3, 0.9], "b": [4, 3, 2, 1], "c": [-1, -5, -3, -9]}
    own = made(means, {"a": "higher", "b": "higher", "c": "lower"}).agreement()
    expected = stats.spearmanr(means["a"], means["b"]).statistic
    assert own.loc["a", "b"] == pytest.approx(expected)
    assert own.loc["b", "a"] == pytest.approx(expected)
    assert own.loc["a", "c"] == pytest.approx(1)  # the same order, where lower is better
    assert np.diag(own).tolist() == pytest.approx([1, 1, 1])


def test_agreement_over_images_is_averaged_over_methods():
    a = [[1, 2, 3, 4], [1, 2, 3, 4]]
    b = [[1, 2, 3, 4], [2, 1, 4, 3]]
    own = made({"a": a, "b": b}, {"a": "higher", "b": "higher"}).agreement("images")
    expected = np.mean([stats.spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)])
    assert own.loc["a", "b"] == pytest.approx(expected)


def test_agreement_of_few_or_equal_is_unknown():
    two = made({"a": [1, 2], "b": [1, 2]}, {"a": "higher", "b": "higher"})
    assert two.agreement().isna().all(axis=None)
    assert two.agreement("images").isna().all(axis=None)  # the same value for all images
    with pytest.raises(ValueError, match='over as "methods" or "images"'):
        two.agreement("classes")


def test_level_is_a_comparison_image_by_image():
    noise = np.array([0.0, 2.0, -2.0, 1.0])
    wiggle = np.array([0.1, -0.3, 0.2, -0.1])
    own = made({"a": [noise, noise - 0.1, noise + wiggle - 0.001]}, {"a": "higher"}).table
    assert own["behind"].tolist() == pytest.approx([0, 0.1, 0.026])
    assert own["level"].tolist() == [True, False, True]
    assert own["behind_low"].tolist()[1] == pytest.approx(0.1)
    lower = made({"a": [-noise, 0.1 - noise]}, {"a": "lower"}).table
    assert lower["behind"].tolist() == pytest.approx([0, 0.1])


def test_a_notebook_shows_what_is_above_the_floors(found):
    table = Table(found._repr_html_())
    shown = ["metric", "better", "method", "mean", "above_floor", "best_floor", "clear"]
    assert table.rows[0] == shown
    for row, own in zip(table.rows[1:], found.table[shown].itertuples(index=False), strict=True):
        assert row == [f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in own]


def test_written_and_read(found, tmp_path):
    found.save(tmp_path / "made")
    again = Evaluation.load(tmp_path / "made")
    for name in ("table", "values", "curves"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(found, name))
    assert repr(again) == "Evaluation(2 methods, 2 metrics, 5 images)"
    with pytest.raises(FileNotFoundError):
        Evaluation.load(tmp_path)


def test_explainers_without_names(net, pictures):
    own = evaluate(
        [camlens.GradCAM(net, "0"), camlens.GradCAM(net, "1"), camlens.Saliency(net)],
        net,
        pictures[:1],
        metrics=["sparseness"],
        floors=(),
    )
    assert own.table["method"].tolist() == ["GradCAM at 0", "GradCAM at 1", "Saliency"]
    with pytest.raises(ValueError, match="two explainers are named 'Saliency'"):
        evaluate([camlens.Saliency(net)] * 2, net, pictures[:1], metrics=["sparseness"])


def another():
    return camlens.Saliency(convolutional())


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"metrics": ["delet"]}, LookupError, "unknown metric 'delet': did you mean 'deletion'"),
        ({"metrics": ["xyz"]}, LookupError, "choose from adcc"),
        ({"metrics": "deletion"}, TypeError, "metrics as a list"),
        ({"metrics": []}, ValueError, "at least one metric"),
        ({"metrics": [print]}, TypeError, "expected the name of a metric"),
        ({"metrics": [deletion, "deletion"]}, ValueError, "two metrics are named 'deletion'"),
        ({"metrics": ["pointing_game"]}, ValueError, "the locations of the objects"),
        ({"explainers": []}, ValueError, "expected explainers such as"),
        ({"explainers": {1: print, "1": print}}, ValueError, "distinct names"),
        ({"explainers": {"a": print}}, TypeError, "got builtin_function"),
        ({"explainers": another}, ValueError, "of another Sequential"),
        ({"floors": "random"}, ValueError, "expected floors from"),
        ({"floors": ("noise",)}, ValueError, "expected floors from"),
        ({"activation": "relu"}, ValueError, "relu"),
        ({"batch_size": 0}, ValueError, "batch_size as an integer of at least 1"),
        ({"seed": -1}, ValueError, "seed"),
        ({"targets": "top"}, ValueError, "expected targets"),
        ({"dataset": []}, ValueError, "no images"),
        ({"dataset": torch.zeros(0, 3, 8, 8)}, ValueError, "no images"),
        ({"dataset": "photos"}, TypeError, "expected a data set"),
        ({"dataset": 3}, TypeError, "expected a data set"),
        ({"dataset": [{"image": 1}]}, TypeError, "expected an element of the data set"),
        ({"dataset": [(torch.zeros(2, 3, 8, 8), [0, 1])]}, ValueError, "one image and its label"),
        ({"dataset": iter([(torch.zeros(2, 3, 8, 8), [0])])}, ValueError, "a class id for each"),
        ({"dataset": [(torch.zeros(3, 8, 8), 0, torch.ones(4, 4))]}, ValueError, "locations of"),
        ({"dataset": [torch.full((3, 12, 12), torch.nan)]}, ValueError, "not finite"),
    ],
)
def test_bad_input(given, change, error, match):
    given = {**given, "dataset": given["dataset"][:1], "floors": (), **change}
    if given["explainers"] is another:
        given["explainers"] = another()
    with pytest.raises(error, match=match):
        evaluate(**given)


def test_an_error_says_which_metric_of_which_method(net, explainers, pictures):
    with pytest.raises(ValueError, match="signed attributions") as raised:
        evaluate(explainers, net, pictures, metrics=["completeness"])
    assert raised.value.__notes__ == ["completeness of cam"]


def test_a_list_of_batches_is_not_taken_for_volumes(net, explainers, pictures):
    with pytest.raises(RuntimeError, match="conv2d") as raised:
        evaluate(explainers, net, [pictures, pictures])
    assert "pass batches as a DataLoader" in raised.value.__notes__[1]


def test_a_model_in_training_mode(explainers, pictures):
    training = nn.Sequential(nn.Flatten(), nn.Linear(432, 2))
    with pytest.raises(ValueError, match="mode"):
        evaluate(explainers, training, pictures)


@pytest.mark.parametrize("rows", [2, 4])
def test_targets_of_another_number_of_images_are_refused(rows):
    model = convolutional()
    explainer, given = camlens.Saliency(model), images(3)
    with pytest.raises(ValueError, match=f"{rows} rows"):
        evaluate(explainer, model, given, targets=[0] * rows, metrics=["sparseness"])


def test_a_label_that_is_no_class_id_is_refused():
    model = convolutional()
    items = [(image, 1.7) for image in images(3)]
    with pytest.raises(ValueError, match="expected a class id"):
        evaluate(camlens.Saliency(model), model, items, targets="label", metrics=["sparseness"])


class Scaled(nn.Module):
    """Multiplies an image by a number of its own, and adds another to a class."""

    def __init__(self):
        super().__init__()
        self.inner = convolutional()

    def forward(self, x, factor, extra=None):
        scores = self.inner(x * factor.view(-1, 1, 1, 1))
        return scores if extra is None else scores + extra.unsqueeze(1) * torch.arange(4.0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["items", "loader", "batches"])
def test_images_bring_further_inputs_of_the_model(kind, pictures):
    model = Scaled().eval()
    factors, extras = torch.linspace(0.5, 3, 5), torch.linspace(1, -1, 5)
    items = [
        ((image, factor, {"extra": extra}), 0)
        for image, factor, extra in zip(pictures, factors, extras, strict=True)
    ]
    given = {
        "items": items,
        "loader": DataLoader(items, batch_size=2),
        "batches": iter([((pictures, factors, {"extra": extras}), [0] * 5)]),
    }[kind]
    cam, saliency = camlens.GradCAM(model, "inner.1"), camlens.Saliency(model)
    metrics = {
        "deletion": "deletion",
        "sensitivity": functools.partial(faithfulness.sensitivity, samples=1),
    }
    own = evaluate([cam, saliency], model, given, metrics=metrics, floors=FLOORS, batch_size=2)
    further = {"inputs": (factors,), "keywords": {"extra": extras}, "floors": FLOORS}
    rows = own.values.set_index(["method", "metric"])
    for explainer, method in ((cam, "GradCAM"), (saliency, "Saliency")):
        explanation = explainer(pictures, factors, extra=extras)
        expected = {
            "deletion": deletion(model, pictures, explanation, **further),
            "sensitivity": metrics["sensitivity"](
                model, pictures, explainer, targets=explanation.targets, **further
            ),
        }
        for name, one in expected.items():
            found = rows.loc[(method, name)]
            assert found["value"].tolist() == pytest.approx(one.values[:, 0].tolist(), abs=1e-5)
            for floor in FLOORS:
                values = one.floor_values[floor][:, 0].tolist()
                assert found[f"floor_{floor}"].tolist() == pytest.approx(values, abs=1e-5)


@pytest.mark.parametrize(
    ("taken", "words"),
    [
        ((torch.zeros(2, 3, 8, 8), torch.zeros(3)), "a row for each of 2 images"),
        ((torch.zeros(2, 3, 8, 8), "x"), "got str"),
        ((torch.zeros(2, 3, 8, 8), {"extra": torch.zeros(1)}), "a row for each of 2 images"),
    ],
)
def test_further_inputs_that_do_not_fit(taken, words):
    model = Scaled().eval()
    with pytest.raises(ValueError, match=words):
        evaluate(camlens.Saliency(model), model, iter([(taken, None)]), metrics=["sparseness"])
