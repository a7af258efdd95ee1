"""A stopped run goes on as if nothing had happened; what cannot go on says why and what to do."""

import dataclasses
import json
import os
import pickle
import resource
import shutil
import signal

import pandas as pd
import pytest
import torch
from made_up_faces import made_up_faces
from run_folders import assert_same_run

from fer2013.configurations.recipes import CONFIGS
from fer2013.networks import weights
from fer2013.training import checkpoints
from fer2013.training.lightning_module import EmotionClassifier
from fer2013.training.train import Machine, train

STEP = EmotionClassifier.training_step
RECIPES = {
    # one-cycle in steps; cosine with EMA, mixup, a teacher and smaller first epochs; plateau
    "first": {},
    "config5": {
        "network": "base",
        "weights": "none",
        "side": 48,
        "average": 0.9,
        "small_epochs": 2,
    },
    "config3": {"network": "base", "frozen": 0, "weights": "none", "split": "standard"},
}


def recipe(kind, **changes):
    values = {"epochs": 3, "batch_size": 14, **RECIPES[kind], **changes}
    return dataclasses.replace(CONFIGS[kind], **values)


def machine():
    return Machine(device="cpu", precision="32-true")


def stop_at(monkeypatch, epoch, batch):
    """Let every training step before that one happen."""

    def step(self, faces, index):
        if (self.current_epoch, index) == (epoch, batch):
            raise RuntimeError("power cut")
        return STEP(self, faces, index)

    monkeypatch.setattr(EmotionClassifier, "training_step", step)


@pytest.mark.parametrize("name", RECIPES)
def test_a_resumed_run_ends_as_a_straight_one(name, tmp_path, monkeypatch):
    faces, config = made_up_faces(), recipe(name)
    options = {"machine": machine(), "seed": 5}
    train(config, faces, out=tmp_path / "straight", **options)
    # in the middle of the second epoch, and before the first step of the third
    for place in ((1, 2), (2, 0)):
        stop_at(monkeypatch, *place)
        with pytest.raises(RuntimeError, match="power cut"):
            train(config, faces, out=tmp_path / "stopped", **options)
    monkeypatch.setattr(EmotionClassifier, "training_step", STEP)
    train(config, faces, out=tmp_path / "stopped", **options)
    assert_same_run(tmp_path / "straight", tmp_path / "stopped")
    seconds = pd.read_csv(tmp_path / "stopped" / "history.csv").seconds
    assert (seconds < 60).all()


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """A run whose power was cut in its second epoch."""
    stop_at(monkeypatch, 1, 1)
    with pytest.raises(RuntimeError, match="power cut"):
        train(recipe("first"), made_up_faces(), out=tmp_path / "run", machine=machine())
    monkeypatch.setattr(EmotionClassifier, "training_step", STEP)
    return tmp_path / "run"


def go_on(folder, config=None, faces=None, **changes):
    options = {"machine": machine(), **changes}
    return train(config or recipe("first"), faces or made_up_faces(), out=folder, **options)


def test_a_folder_may_be_moved(stopped, tmp_path):
    shutil.move(stopped, tmp_path / "moved")
    go_on(tmp_path / "moved")
    go_on(tmp_path / "straight")
    assert not stopped.exists()
    assert_same_run(tmp_path / "straight", tmp_path / "moved")


def test_what_a_killed_process_leaves_is_cleaned_up(stopped):
    part = stopped / ".last.ckpt.123.part"
    part.write_bytes(b"half")
    go_on(stopped)
    assert not part.exists()
    assert sorted(p.name for p in stopped.glob("*.ckpt")) == ["best.ckpt", "last.ckpt"]


def test_a_run_killed_in_its_first_epoch_starts_again(stopped):
    (stopped / "last.ckpt").unlink()
    go_on(stopped)
    assert sorted(p.name for p in stopped.glob("*.ckpt")) == ["best.ckpt", "last.ckpt"]


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"config": recipe("first", rate=0.2)}, "rate"),
        ({"config": recipe("config3")}, "name, .*"),
        ({"seed": 1}, "seed"),
        ({"machine": Machine(device="cpu", precision="bf16-mixed")}, "precision"),
        ({"faces": made_up_faces(seed=1)}, "data"),
    ],
)
def test_another_run_is_refused(stopped, changed, names, finished):
    if finished:  # and its checkpoints removed, to save space
        go_on(stopped)
        for checkpoint in stopped.glob("*.ckpt"):
            checkpoint.unlink()
    before = {p.name: p.read_bytes() for p in stopped.iterdir()}
    with pytest.raises(ValueError, match=f"run with other values of {names}: go on with the same"):
        go_on(stopped, **changed)
    assert {p.name: p.read_bytes() for p in stopped.iterdir()} == before


def test_a_finished_run_is_not_trained_again(stopped, monkeypatch):
    path = go_on(stopped)
    times = {p.name: p.stat().st_mtime_ns for p in stopped.iterdir()}
    stop_at(monkeypatch, 0, 0)
    assert go_on(stopped) == path
    for checkpoint in stopped.glob("*.ckpt"):
        checkpoint.unlink()
        del times[checkpoint.name]
    assert go_on(stopped) == path
    assert {p.name: p.stat().st_mtime_ns for p in stopped.iterdir()} == times


def test_a_run_killed_before_its_file_was_written(stopped, monkeypatch):
    path = go_on(stopped)
    content = path.read_bytes()
    path.unlink()
    stop_at(monkeypatch, 2, 0)
    assert go_on(stopped) == path
    assert path.read_bytes() == content


def test_a_resumed_run_remembers_what_it_started_from(tmp_path, monkeypatch):
    first = go_on(tmp_path / "runs" / "first", seed=2)
    config = recipe("first", name="second", weights=str(first))
    stop_at(monkeypatch, 1, 1)
    with pytest.raises(RuntimeError, match="power cut"):
        go_on(tmp_path / "second", config)
    monkeypatch.setattr(EmotionClassifier, "training_step", STEP)
    facts = weights.read_facts(go_on(tmp_path / "second", config))
    assert facts["started_from"] == weights.read_facts(first)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: b"",
        lambda whole: b"no checkpoint",
        lambda whole: whole[:5000] + bytes(50) + whole[5050:],
    ],
    ids=["cut", "empty", "text", "zeroed"],
)
def test_a_damaged_checkpoint(stopped, damage, tmp_path):
    last = stopped / "last.ckpt"
    last.write_bytes(damage(last.read_bytes()))
    with pytest.raises(ValueError, match=r"last\.ckpt is not a whole checkpoint.*best\.ckpt"):
        go_on(stopped)
    # the remedy that it names
    shutil.copy(stopped / "best.ckpt", last)
    assert go_on(stopped).read_bytes() == go_on(tmp_path / "straight").read_bytes()


def test_a_checkpoint_that_would_run_code(stopped, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "bomb"),)

    torch.save({"callbacks": Bomb()}, stopped / "last.ckpt", pickle_module=pickle)
    with pytest.raises(ValueError, match="is not a whole checkpoint"):
        go_on(stopped)
    assert not (tmp_path / "bomb").exists()


def test_a_checkpoint_of_something_else(stopped):
    torch.save({"x": torch.zeros(1)}, stopped / "last.ckpt")
    with pytest.raises(ValueError, match="is not a whole checkpoint"):
        go_on(stopped)


def test_a_damaged_record(stopped):
    (stopped / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json does not hold a run"):
        go_on(stopped)
    (stopped / "run.json").unlink()
    go_on(stopped)
    assert json.loads((stopped / "run.json").read_text())["seed"] == 0


def test_a_full_disk_leaves_the_last_checkpoint(stopped, tmp_path):
    before = (stopped / "last.ckpt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # no file may grow beyond half a checkpoint: writing it fails half-way
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write .*\.ckpt .*unharmed"):
            go_on(stopped)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    assert (stopped / "last.ckpt").read_bytes() == before
    assert not list(stopped.glob(".*.part"))
    go_on(stopped)
    go_on(tmp_path / "straight")
    assert_same_run(tmp_path / "straight", stopped)


def test_reading_a_checkpoint_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoints.read(tmp_path / "last.ckpt")
