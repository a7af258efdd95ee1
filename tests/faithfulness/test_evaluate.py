"""Evaluations: the metrics' own numbers, whatever the batches, with the floors of each once."""

import functools

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import camlens
from camlens.faithfulness import METRICS, deletion, evaluate, mu_fidelity, randomization

from . import metrics


@pytest.fixture(scope="module")
def model():
    return metrics.convolutional()


@pytest.fixture(scope="module")
def explainers(model):
    return {"cam": camlens.GradCAM(model, "1"), "saliency": camlens.Saliency(model)}


def test_the_numbers_are_those_of_the_metrics(model, explainers):
    images = metrics.images(6)
    wanted = {"deletion": functools.partial(deletion, step=30), "mu_fidelity": mu_fidelity}
    found = evaluate(
        explainers, model, images, metrics=wanted, targets=[[0, 2]], batch_size=4, seed=5
    )
    for name, metric in wanted.items():
        for method, explainer in explainers.items():
            explanation = explainer(images, targets=[[0, 2]])
            direct = metric(model, images, explanation, seed=5)
            result = found.results[name, method]
            torch.testing.assert_close(
                result.values,
                direct.values.double().mean(dim=1, keepdim=True),
                atol=1e-5,
                rtol=1e-4,
            )
            assert result.above_floor.mean == pytest.approx(direct.above_floor.mean, abs=1e-5)
            assert result.above_floor.floor == direct.above_floor.floor
            row = found.table.query("metric == @name and method == @method").iloc[0]
            assert row["mean"] == pytest.approx(direct.mean, abs=1e-5)
            assert (row["low"], row["high"]) == pytest.approx(direct.interval, abs=1e-4)
    curve = found.curves.query("metric == 'deletion' and method == 'cam'")
    explanation = explainers["cam"](images, targets=[[0, 2]])
    direct = deletion(model, images, explanation, step=30, seed=5)
    np.testing.assert_allclose(curve["value"], direct.curve.mean(dim=(0, 1)), atol=1e-5)
    np.testing.assert_allclose(curve["step"], direct.steps, atol=1e-6)


def test_batches_do_not_matter(model, explainers):
    images = metrics.images(5)
    tables = [
        evaluate(
            explainers,
            model,
            images,
            batch_size=size,
            metrics=[name for name in METRICS if name not in NOT_HERE],
        ).table
        for size in (2, 5)
    ]
    for column in ("mean", "low", "high", "above", "above_low"):
        np.testing.assert_allclose(
            tables[0][column].astype(float), tables[1][column].astype(float), atol=1e-3, rtol=1e-3
        )


#: They need masks, several targets or signed attributions.
NOT_HERE = (
    *("pointing_game", "energy_pointing_game", "intersection_over_union"),
    *("random_logit", "completeness"),
)


def test_labels_and_masks_of_a_data_set(model, explainers):
    images, labels = metrics.images(4), torch.tensor([3, 1, 0, 2])
    masks = torch.zeros(4, 12, 12)
    masks[:, 2:6, 3:9] = 1
    data = TensorDataset(images, labels, masks)
    wanted = ["energy_pointing_game", "pointing_game"]
    found = evaluate(explainers, model, data, metrics=wanted, targets="label", batch_size=3)
    first = found.values.query("method == 'cam'").groupby("image")["target"].first()
    assert first.tolist() == [3, 1, 0, 2]
    loaded = evaluate(
        explainers, model, DataLoader(data, batch_size=2), metrics=wanted, targets="label"
    )
    np.testing.assert_allclose(found.table["mean"], loaded.table["mean"], atol=1e-6)
    heat = explainers["cam"](images, targets=labels).heatmaps[:, 0]
    share = (heat * masks).sum(dim=(1, 2)) / heat.sum(dim=(1, 2))
    assert found.results["energy_pointing_game", "cam"].mean == pytest.approx(share.mean().item())


def test_metrics_of_explainers_are_given_the_explainer(model, explainers):
    images = metrics.images(3)
    found = evaluate(explainers, model, images, metrics=["randomization", "sensitivity"])
    direct = randomization(model, images, explainers["saliency"])
    assert found.results["randomization", "saliency"].mean == pytest.approx(direct.mean, abs=1e-5)


def test_level_with_the_best_and_agreement(model, explainers):
    images = metrics.images(12)
    both = {**explainers, "again": explainers["cam"]}
    found = evaluate(both, model, images, metrics=["deletion", "insertion", "sparseness"])
    level = found.table.set_index(["metric", "method"])["level"]
    for metric in ("deletion", "insertion", "sparseness"):
        assert level[metric, "cam"] == level[metric, "again"]
        assert level[metric].any()
    agreement = found.agreement()
    assert np.allclose(np.diag(agreement), 1)
    assert np.allclose(agreement, agreement.T)


def test_methods_of_one_name_need_names(model):
    pair = [camlens.GradCAM(model, "1"), camlens.GradCAM(model, "0")]
    with pytest.raises(ValueError, match="GradCAM twice"):
        evaluate(pair, model, metrics.images())


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"metrics": ["nothing"]}, ValueError, "nothing"),
        ({"metrics": []}, ValueError, "metric"),
        ({"metrics": ["pointing_game"]}, ValueError, "mask"),
        ({"targets": "label"}, ValueError, "no labels"),
        ({"dataset": iter([])}, TypeError, "DataLoader"),
        ({"dataset": torch.zeros(0, 3, 12, 12)}, ValueError, "image"),
        ({"explainers": {}}, ValueError, "explainer"),
        ({"explainers": {"a": 3}}, TypeError, "'a'"),
        ({"metrics": ["random_logit"]}, ValueError, "two targets"),
    ],
)
def test_bad_input(model, explainers, options, error, words):
    given = {"explainers": explainers, "dataset": metrics.images(), **options}
    with pytest.raises(error, match=words):
        evaluate(given.pop("explainers"), model, given.pop("dataset"), **given)
