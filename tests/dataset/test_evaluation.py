"""Evaluations in folders: the same numbers, byte for byte after an interruption, and refusals."""

import hashlib

import pandas as pd
import pytest
import torch

import camlens
from camlens.dataset import Sample, evaluate_dataset, read_evaluation
from camlens.dataset import evaluation as module
from camlens.faithfulness import evaluate
from camlens.regions import Regions
from tests.faithfulness import metrics


class Items:
    """Images with regions; item 3 cannot be read."""

    def __init__(self, broken=True):
        self.images, self.broken = metrics.images(7), broken

    def __len__(self):
        return 7

    def __getitem__(self, index):
        if self.broken and index == 3:
            raise OSError("no such image")
        masks = torch.zeros(2, 12, 12)
        masks[0, 2:6, index : index + 4] = 1
        masks[1, 8:] = 1
        return Sample(self.images[index], index % 4, regions=Regions(["object", "ground"], masks))


@pytest.fixture(scope="module")
def explainers():
    model = metrics.convolutional()
    return {"cam": camlens.GradCAM(model, "1"), "saliency": camlens.Saliency(model)}


OPTIONS = {
    "metrics": ["deletion", "mu_fidelity", "pointing_game"],
    "region": "object",
    "targets": "label",
    "shard_size": 3,
    "batch_size": 2,
    "seed": 4,
    "progress": False,
}


def sums(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


def test_the_numbers_are_those_of_evaluate(explainers, tmp_path):
    found = evaluate_dataset(explainers, Items(broken=False), tmp_path / "run", **OPTIONS)
    images = metrics.images(7)
    masks = torch.stack(
        [Items()[i].regions.masks[0, 0] if i != 3 else torch.zeros(12, 12) for i in range(7)]
    )
    masks[3, 2:6, 3:7] = 1
    data = torch.utils.data.TensorDataset(images, torch.arange(7) % 4, masks)
    direct = evaluate(
        explainers,
        explainers["cam"].model,
        data,
        metrics=OPTIONS["metrics"],
        targets="label",
        seed=4,
    )
    columns = ["metric", "method"]
    one, other = (e.table.sort_values(columns).reset_index(drop=True) for e in (found, direct))
    pd.testing.assert_frame_equal(one, other, rtol=1e-3, atol=1e-4)


def test_an_interrupted_evaluation_ends_as_a_straight_one(explainers, tmp_path, monkeypatch):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    evaluate_dataset(explainers, Items(), straight, **OPTIONS)
    write, calls = module._write, []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(module, "_write", failing)
    with pytest.raises(KeyboardInterrupt):
        evaluate_dataset(explainers, Items(), broken, **OPTIONS)
    monkeypatch.setattr(module, "_write", write)
    assert len(list(broken.glob("shard-*.parquet"))) == 1
    evaluate_dataset(explainers, Items(), broken, **OPTIONS)
    assert sums(broken) == sums(straight)
    before = sums(broken)
    evaluate_dataset(explainers, Items(), broken, **OPTIONS)
    assert sums(broken) == before


def test_unreadable_items_are_listed_and_left_out(explainers, tmp_path):
    found = evaluate_dataset(explainers, Items(), tmp_path / "run", **OPTIONS)
    assert sorted(found.values["image"].unique()) == [0, 1, 2, 4, 5, 6]
    listed = module.read_unreadable(tmp_path / "run")
    assert listed["image"].tolist() == [3]
    assert "no such image" in listed["reason"][0]
    whole = evaluate_dataset(explainers, Items(broken=False), tmp_path / "whole", **OPTIONS)
    same = whole.values[whole.values["image"] != 3].reset_index(drop=True)
    columns = ["image", "method", "metric", "value"]
    pd.testing.assert_frame_equal(found.values[columns], same[columns], rtol=1e-3, atol=1e-4)


def test_another_question_is_refused(explainers, tmp_path):
    evaluate_dataset(explainers, Items(), tmp_path / "run", **OPTIONS)
    for change in ({"seed": 5}, {"metrics": ["deletion"]}, {"targets": None}):
        with pytest.raises(ValueError, match="mixed"):
            evaluate_dataset(explainers, Items(), tmp_path / "run", **{**OPTIONS, **change})
    with pytest.raises(ValueError, match="mixed"):
        evaluate_dataset({"cam": explainers["cam"]}, Items(), tmp_path / "run", **OPTIONS)


def test_foreign_and_damaged_folders(explainers, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        evaluate_dataset(explainers, Items(), tmp_path, **OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    run = tmp_path / "run"
    evaluate_dataset(explainers, Items(), run, **OPTIONS)
    shard = sorted(run.glob("shard-*.parquet"))[0]
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged"):
        read_evaluation(run)
    with pytest.raises(FileNotFoundError):
        read_evaluation(tmp_path / "nothing")


def test_localization_needs_to_know_the_object(explainers, tmp_path):
    with pytest.raises(ValueError, match="'object', 'ground'"):
        evaluate_dataset(explainers, Items(), tmp_path / "a", **{**OPTIONS, "region": None})
    plain = [metrics.images(1)[0]]
    with pytest.raises(ValueError, match="no regions"):
        evaluate_dataset(
            explainers, plain, tmp_path / "b", metrics=["pointing_game"], progress=False
        )
