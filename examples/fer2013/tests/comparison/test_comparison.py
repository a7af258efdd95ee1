"""The comparison with the deck: measured and unmeasured rows, and rejected results."""

import dataclasses
import json
import math
import os
import subprocess
import sys

import pandas as pd
import pytest
import torch

from fer2013.__main__ import main
from fer2013.comparison import deck
from fer2013.comparison.report import WIDTH, as_text
from fer2013.comparison.results import RANDOM, SELECTED, collect, deviations, network
from fer2013.comparison.table import compare, per_class, rows
from fer2013.configurations.recipes import CONFIGS
from fer2013.data.faces import CLASSES
from fer2013.evaluation.accuracy import wilson
from fer2013.evaluation.predictions import MEANINGS
from fer2013.files import sha256
from fer2013.networks import weights

RUN = {"seed": 0, "precision": "bf16-mixed", "data": "x"}


def report(value, count):
    measures = {"precision": value, "recall": value, "f1-score": value, "support": count}
    return {**dict.fromkeys((*CLASSES, "macro avg", "weighted avg"), measures), "accuracy": value}


def make_run(folder, config, accuracy=0.7, count=3589, **facts):
    """Write a finished run with a single weight."""
    folder.mkdir(parents=True)
    values = dataclasses.asdict(config)
    (folder / "run.json").write_text(json.dumps({"config": values, **RUN}))
    known = {
        "network": config.network,
        "config": values,
        "trained_on": f"FER2013 Training, {28709 if config.split == 'standard' else 22967} faces",
        "selected_on": "FER2013 PublicTest, 3589 faces",
        "accuracy": accuracy,
        "accuracy_on": "PublicTest, on which the epoch was selected",
        "averaging": MEANINGS[config.averaging],
        "report": report(accuracy, count),
    }
    path = folder / f"{config.name}.safetensors"
    weights.save({"x": torch.zeros(1)}, {**known, **facts}, path)
    return path


def evaluation(path, averaging, correct, count=3589):
    """Return the JSON of an evaluation of a run."""
    part = {"n": count, "correct": correct, "report": report(correct / count, count)}
    return {
        **part,
        "weights": {"file": path.name, "sha256": sha256(path)},
        "training": weights.read_facts(path),
        "selected on it": True,
        "deduplicated": {**part, "n": count - 89, "correct": correct - 89},
        "on": "PublicTest",
        "averaging": averaging,
        "command": "python -m fer2013 evaluate",
    }


def table(runs, measured):
    return rows(collect(runs, measured)[0])


def only(frame, **values):
    for name, value in values.items():
        frame = frame[frame[name] == value]
    assert len(frame) == 1
    return frame.iloc[0]


def test_the_decks_accuracies_are_whole_numbers_of_images():
    found = {
        name: (figures.training, figures.validation, figures.test)
        for name, figures in deck.CONFIGURATIONS.items()
    }
    assert found == {
        "config1": ("52", "45", 44.22),
        "config2": (">90", "57", 51.31),
        "config3": ("77", "74", 57.91),
        "config4": (">90", "83", 59.11),
    }
    for figures in deck.CONFIGURATIONS.values():
        # a whole number of 7,178 images, rounded to two digits
        assert round(100 * figures.correct / 7178, 2) == figures.test
    # 4,243 of 7,178: 59.11 +- 1.96 sqrt(.5911 * .4089 / 7178), to a tenth of a point
    low, high = deck.CONFIGURATIONS["config4"].interval
    half = 1.96 * math.sqrt(0.5911 * 0.4089 / 7178)
    assert (low, high) == pytest.approx((0.5911 - half, 0.5911 + half), abs=1e-4)


def test_without_runs_the_package_has_the_base_network(tmp_path):
    found = table(tmp_path / "runs", tmp_path / "measured")
    base = only(found, configuration="base")
    assert base["accuracy"] == pytest.approx(100 * 2459 / 3589)
    assert (base["low"], base["high"]) == pytest.approx([100 * x for x in wilson(2459, 3589)])
    assert (base["on"], base["averaging"], base["faces"]) == ("PublicTest", "mirror", 3589)
    assert base["note"] == SELECTED
    assert math.isnan(base["deck_test"])
    for name in ("config1", "config2", "config3", "config4"):
        row = only(found, configuration=name)
        assert row["status"] == "unmeasured"
        assert row["command"].startswith(
            f"python -m fer2013 train {name} --data DATA --weights imagenet && "
        )
        assert row["command"].endswith("--split deck-test")
    assert only(found, configuration="config5")["status"] == "unmeasured"


def test_the_packages_record_and_weights_agree(tmp_path):
    results, skipped = collect(tmp_path)
    assert not skipped
    base = [r for r in results if r.config.name == "base"]
    assert [(r.correct, r.count, r.averaging) for r in base] == [(2459, 3589, "mirror")]


def test_random_weights_are_not_a_result(tmp_path):
    config = dataclasses.replace(CONFIGS["config2"], weights="none")
    make_run(tmp_path / "config2", config, accuracy=0.4321)
    found = table(tmp_path, tmp_path / "measured")
    assert only(found, configuration="config2", status="unmeasured")["source"] == ""
    row = only(found, configuration="config2", status="no result")
    assert math.isnan(row["accuracy"])
    assert row["note"] == RANDOM
    said = "\n".join(compare(tmp_path, tmp_path / "out"))
    assert "43.21" not in said
    assert "random initial weights, which is not" in said


def test_a_run_from_imagenet_is_a_result(tmp_path):
    make_run(tmp_path / "config1", CONFIGS["config1"], accuracy=0.5)
    row = only(table(tmp_path, tmp_path / "none"), configuration="config1")
    assert row["status"] == "measured"
    assert row["accuracy"] == pytest.approx(100 * round(0.5 * 3589) / 3589)


def test_pretraining_on_tiny_imagenet_is_named_and_imagenet_stays_unmeasured(tmp_path):
    path = tmp_path / "config3" / "config3.safetensors"
    config = dataclasses.replace(CONFIGS["config3"], weights="runs/pretrain/vgg19.safetensors")
    last = {"train_accuracy": 0.7, "val_accuracy": 0.6}
    facts = {"pretrained_on": "Tiny ImageNet", "seed": 2, "last_epoch": last}
    make_run(path.parent, config, accuracy=0.5, **facts)
    found = table(tmp_path, tmp_path / "none")
    wanted = only(found, configuration="config3", network="VGG19 pretrained on ImageNet")
    assert (wanted["status"], wanted["command"][:42]) == (
        "unmeasured",
        "python -m fer2013 train config3 --data DAT",
    )
    ours = only(found, configuration="config3", network="VGG19 pretrained on Tiny ImageNet")
    assert (ours["training"], ours["validation"]) == (70, 60)
    assert ours["note"] == f"seed 2; {SELECTED}"


def test_deviations_from_the_protocol_are_named():
    config1, config5 = CONFIGS["config1"], CONFIGS["config5"]
    assert deviations(config1, {"trained_on": "FER2013 Training, 22967 faces"}) == ()
    # a file of torchvision, and one of unknown origin
    given = dataclasses.replace(config1, weights="vgg19.pth")
    for seen in ("ImageNet", "Tiny ImageNet"):
        assert deviations(given, {"pretrained_on": seen}) == ()
        assert network(given, {"pretrained_on": seen}) == f"VGG19 pretrained on {seen}"
    assert deviations(given, {"pretrained_on": "vgg19.pth"}) == (
        "from vgg19.pth, of unknown origin",
    )
    assert deviations(config1, {"index": "12ab"}) == ("trained with the index 12ab",)
    other = dataclasses.replace(config1, weights="x.safetensors")
    assert "not pretrained on photographs" in deviations(other, {"started_from": {}})[0]
    short = dataclasses.replace(config5, epochs=2, weights="none")
    few = {"trained_on": "FER2013 Training, 1600 faces"}
    assert deviations(short, few) == (
        "epochs 2, not 18",
        RANDOM,
        "trained on 1,600 images, not 28,709",
    )
    mine = dataclasses.replace(config5, name="mine")
    assert deviations(mine, {}) == ("not a configuration of this version",)


def test_a_runs_evaluations_take_precedence_over_records(tmp_path):
    folder = tmp_path / "runs" / "config5"
    path = make_run(folder, CONFIGS["config5"], accuracy=0.71)
    for averaging, correct in (("single", 2500), ("ten-crop", 2548)):
        place = folder / "evaluation" / f"PublicTest-{averaging}"
        place.mkdir(parents=True)
        values = evaluation(path, averaging, correct)
        (place / "evaluation.json").write_text(json.dumps(values))
    measured = tmp_path / "measured"
    measured.mkdir()
    record = {"evaluations": [evaluation(path, "ten-crop", 2548), evaluation(path, "mirror", 2520)]}
    (measured / "config5.json").write_text(json.dumps(record))
    found = table(tmp_path / "runs", measured)
    ours = found[(found["configuration"] == "config5") & (found["faces"] == 3589)]
    assert ours["distinct"].dropna().tolist() == pytest.approx(
        [100 * (n - 89) / 3500 for n in (2500, 2548, 2520)]
    )
    # the ten-crop accuracy of the training and of the record are those of the same weights
    assert dict(zip(ours["averaging"], ours["accuracy"], strict=True)) == pytest.approx(
        {"single": 100 * 2500 / 3589, "ten-crop": 100 * 2548 / 3589, "mirror": 100 * 2520 / 3589}
    )
    classes = per_class(collect(tmp_path / "runs", measured)[0])
    assert classes["config5, ours (PublicTest)"].tolist() == pytest.approx([2548 / 3589] * 7)
    assert classes["config4, the deck (deck-test)"].tolist() == [
        *(0.50, 0.65, 0.47, 0.77, 0.54, 0.46, 0.75)
    ]


def test_damaged_files_are_reported_and_skipped(tmp_path):
    runs, measured = tmp_path / "runs", tmp_path / "measured"
    path = make_run(runs / "config5", CONFIGS["config5"])
    place = runs / "config5" / "evaluation"
    for name, text in (("a", "{"), ("b", "[]"), ("c", "{}")):
        (place / name).mkdir(parents=True)
        (place / name / "evaluation.json").write_text(text)
    stale = evaluation(path, "single", 2000)
    stale["weights"]["sha256"] = "0"
    (place / "d").mkdir()
    (place / "d" / "evaluation.json").write_text(json.dumps(stale))
    (runs / "broken").mkdir()
    (runs / "broken" / "run.json").write_text("{")
    make_run(runs / "mixed", CONFIGS["config5"])
    (runs / "mixed" / "run.json").write_text(
        json.dumps({"config": dataclasses.asdict(CONFIGS["config5"]) | {"epochs": 3}, **RUN})
    )
    make_run(runs / "torn", CONFIGS["config5"]).write_bytes(b"torn")
    measured.mkdir()
    (measured / "config5.json").write_text('{"evaluations": [{}]}')
    found, skipped = collect(runs, measured)
    assert [r.accuracy for r in found if r.config.name == "config5"] == [
        pytest.approx(0.7, abs=1e-4)
    ]
    text = "\n".join(skipped)
    for name in ("a", "b", "c"):
        assert f"evaluation/{name}/evaluation.json is not an evaluation" in text
    assert "evaluation/d/evaluation.json was made with other weights" in text
    assert "broken/run.json is not the record of a run" in text
    assert "has another configuration than run.json" in text
    assert "torn/config5.safetensors is not a complete safetensors file" in text
    assert "measured/config5.json is not a record" in text
    assert len(skipped) == 8


def test_a_record_of_other_weights_than_the_packages_is_skipped(tmp_path):
    values = evaluation(weights.SHIPPED, "mirror", 3500)
    values["weights"]["sha256"] = "0"
    (tmp_path / "base.json").write_text(json.dumps({"evaluations": [values]}))
    found, skipped = collect(tmp_path / "runs", tmp_path)
    assert [r.correct for r in found] == [2459]
    assert "was made with other weights than base.safetensors" in skipped[0]


def test_an_unfinished_run_has_its_number_of_epochs(tmp_path):
    (tmp_path / "slow").mkdir()
    values = {"config": dataclasses.asdict(CONFIGS["config5"]), **RUN}
    (tmp_path / "slow" / "run.json").write_text(json.dumps(values))
    (tmp_path / "slow" / "history.csv").write_text("epoch\n1\n2\n")
    row = only(table(tmp_path, tmp_path / "none"), configuration="config5")
    assert row["status"] == "unfinished"
    assert row["note"].endswith("slow; unfinished, 2 of at most 18 epochs")


def test_the_command_compare(tmp_path, capsys, monkeypatch):
    name = "config4-original-head"
    make_run(tmp_path / "runs" / ("a-long-name-of-a-run" * 3), CONFIGS[name])
    monkeypatch.chdir(tmp_path)
    assert main(["compare"]) == 0
    said = capsys.readouterr().out
    assert max(map(len, as_text(table(tmp_path / "runs", tmp_path / "none")).splitlines())) <= WIDTH
    line = next(line for line in said.splitlines() if line.startswith("config4 "))
    assert line.split() == [
        *("config4", "VGG19", "pretrained", "on", "ImageNet", ">90/83", "59.11", "unmeasured")
    ]
    assert "68.51 (67.0-70.0)" in said
    assert "figures on different test sets are not the same" in " ".join(said.split())
    assert "70.80  VGG19, ImageNet weights, 224 px, on PrivateTest" in said
    out = tmp_path / "out" / "compare"
    assert set(pd.read_csv(out / "comparison.csv")["configuration"]) >= {"base", "config1", name}
    assert len(pd.read_csv(out / "per_class.csv")) == 7
    values = json.loads((out / "comparison.json").read_text())  # NaN would be no JSON
    assert next(r["deck_test"] for r in values["rows"] if r["configuration"] == "base") is None
    assert "NaN" not in (out / "comparison.json").read_text()
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "fer2013", "compare"]
    left = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (left.returncode, left.stderr) == (1, "")
