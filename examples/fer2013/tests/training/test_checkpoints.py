"""Stopped runs resume with identical results; damaged and foreign runs are errors with remedies."""

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
from narrow_base import narrow_base_network
from run_folders import assert_same_run

from fer2013.configurations.recipes import CONFIGS
from fer2013.networks import weights
from fer2013.training import checkpoints
from fer2013.training.lightning_module import EmotionClassifier
from fer2013.training.train import Machine, train

STEP = EmotionClassifier.training_step
RECIPES = {
    # one-cycle; cosine with EMA, mixup, distillation and smaller first epochs; plateau
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


@pytest.fixture(scope="module", autouse=True)
def _narrow():
    """Replace the base network by a narrow one."""
    with narrow_base_network():
        yield


def recipe(kind, **changes):
    values = {"epochs": 3, "batch_size": 7, **RECIPES[kind], **changes}
    return dataclasses.replace(CONFIGS[kind], **values)


def few_faces(seed=0):
    """Return four training batches and one validation batch."""
    return made_up_faces(training=4, public=1, seed=seed)


def machine():
    return Machine(device="cpu", precision="32-true")


def stop_at(monkeypatch, epoch, batch):
    """Interrupt training before the given step."""

    def step(self, faces, index):
        if (self.current_epoch, index) == (epoch, batch):
            raise RuntimeError("power cut")
        return STEP(self, faces, index)

    monkeypatch.setattr(EmotionClassifier, "training_step", step)


@pytest.mark.parametrize(
    # test_configurations.py also resumes a plateau
    "name",
    ["first", "config5", pytest.param("config3", marks=pytest.mark.exhaustive)],
)
def test_a_resumed_run_equals_an_uninterrupted_one(name, tmp_path, monkeypatch):
    faces, config = few_faces(), recipe(name)
    options = {"machine": machine(), "seed": 5}
    train(config, faces, out=tmp_path / "straight", **options)
    # in the second epoch, and before the first step of the third
    for place in ((1, 2), (2, 0)):
        stop_at(monkeypatch, *place)
        with pytest.raises(RuntimeError, match="power cut"):
            train(config, faces, out=tmp_path / "stopped", **options)
    monkeypatch.setattr(EmotionClassifier, "training_step", STEP)
    train(config, faces, out=tmp_path / "stopped", **options)
    assert_same_run(tmp_path / "straight", tmp_path / "stopped")
    seconds = pd.read_csv(tmp_path / "stopped" / "history.csv").seconds
    assert (seconds < 60).all()


def resume(folder, config=None, faces=None, **changes):
    options = {"machine": machine(), **changes}
    return train(config or recipe("first"), faces or few_faces(), out=folder, **options)


@pytest.fixture(scope="module")
def cut_run(tmp_path_factory):
    """A run that was interrupted in its second epoch; tests copy it."""
    folder = tmp_path_factory.mktemp("cut") / "run"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 1, 1)
        with pytest.raises(RuntimeError, match="power cut"):
            resume(folder)
    return folder


@pytest.fixture
def stopped(cut_run, tmp_path):
    """A copy of a run that was interrupted in its second epoch."""
    shutil.copytree(cut_run, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The same run, uninterrupted; tests only read it."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    resume(folder)
    return folder


@pytest.fixture
def finished(straight, tmp_path):
    """A copy of a finished run."""
    shutil.copytree(straight, tmp_path / "finished")
    return tmp_path / "finished"


def test_a_moved_folder_resumes(cut_run, straight, tmp_path):
    """Unlike a copied one, nothing remains at the old path."""
    moved, away = tmp_path / "moved", cut_run.with_name("away")
    shutil.copytree(cut_run, moved)
    cut_run.rename(away)
    part = moved / ".last.ckpt.123.part"  # left by a killed process
    part.write_bytes(b"half")
    try:
        resume(moved)
        assert not cut_run.exists()
    finally:
        away.rename(cut_run)
    assert_same_run(straight, moved)
    assert not part.exists()
    assert sorted(p.name for p in moved.glob("*.ckpt")) == ["best.ckpt", "last.ckpt"]


def test_a_run_killed_in_its_first_epoch_restarts(stopped):
    (stopped / "last.ckpt").unlink()
    resume(stopped)
    assert sorted(p.name for p in stopped.glob("*.ckpt")) == ["best.ckpt", "last.ckpt"]


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"config": recipe("first", rate=0.2)}, "rate"),
        ({"config": recipe("config3")}, "name, .*"),
        ({"seed": 1}, "seed"),
        ({"machine": Machine(device="cpu", precision="bf16-mixed")}, "precision"),
        ({"faces": few_faces(seed=1)}, "data"),
    ],
)
def test_other_settings_are_refused(request, changed, names, ended):
    folder = request.getfixturevalue("finished" if ended else "stopped")
    if ended:  # users may delete checkpoints to save space
        for checkpoint in folder.glob("*.ckpt"):
            checkpoint.unlink()
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(ValueError, match=f"run with other values of {names}: use the same"):
        resume(folder, **changed)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_a_finished_run_is_not_trained_again(finished, monkeypatch):
    path = finished / "first.safetensors"
    times = {p.name: p.stat().st_mtime_ns for p in finished.iterdir()}
    stop_at(monkeypatch, 0, 0)
    assert resume(finished) == path
    for checkpoint in finished.glob("*.ckpt"):
        checkpoint.unlink()
        del times[checkpoint.name]
    assert resume(finished) == path
    assert {p.name: p.stat().st_mtime_ns for p in finished.iterdir()} == times


def test_a_run_killed_before_its_export_is_exported(finished, monkeypatch):
    path = finished / "first.safetensors"
    content = path.read_bytes()
    path.unlink()
    stop_at(monkeypatch, 2, 0)
    assert resume(finished) == path
    assert path.read_bytes() == content


def test_a_resumed_run_keeps_the_origin_of_its_weights(straight, tmp_path, monkeypatch):
    first = straight / "first.safetensors"
    config = recipe("first", name="second", weights=str(first))
    stop_at(monkeypatch, 1, 1)
    with pytest.raises(RuntimeError, match="power cut"):
        resume(tmp_path / "second", config)
    monkeypatch.setattr(EmotionClassifier, "training_step", STEP)
    facts = weights.read_facts(resume(tmp_path / "second", config))
    assert facts["started_from"] == weights.read_facts(first)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: b"",
        lambda whole: b"not a checkpoint",
        lambda whole: whole[:5000] + bytes(50) + whole[5050:],
    ],
    ids=["cut", "empty", "text", "zeroed"],
)
def test_a_damaged_checkpoint_is_an_error(stopped, damage):
    last = stopped / "last.ckpt"
    last.write_bytes(damage(last.read_bytes()))
    with pytest.raises(ValueError, match=r"last\.ckpt is not a complete checkpoint.*best\.ckpt"):
        resume(stopped)


def test_a_copy_of_the_best_checkpoint_replaces_a_damaged_one(stopped, straight):
    shutil.copy(stopped / "best.ckpt", stopped / "last.ckpt")
    path = resume(stopped)
    assert path.read_bytes() == (straight / path.name).read_bytes()


def test_a_checkpoint_that_would_run_code_is_refused(stopped, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "bomb"),)

    torch.save({"callbacks": Bomb()}, stopped / "last.ckpt", pickle_module=pickle)
    with pytest.raises(ValueError, match="is not a complete checkpoint"):
        resume(stopped)
    assert not (tmp_path / "bomb").exists()


def test_another_file_is_not_a_checkpoint(stopped):
    torch.save({"x": torch.zeros(1)}, stopped / "last.ckpt")
    with pytest.raises(ValueError, match="is not a complete checkpoint"):
        resume(stopped)


def test_a_damaged_record_is_an_error_and_a_missing_one_is_rewritten(stopped):
    (stopped / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json is not the record of a run"):
        resume(stopped)
    (stopped / "run.json").unlink()
    resume(stopped)
    assert json.loads((stopped / "run.json").read_text())["seed"] == 0


def test_a_full_disk_keeps_the_previous_checkpoint(stopped, straight):
    before = (stopped / "last.ckpt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # writing fails after half a checkpoint
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write .*\.ckpt .*unchanged"):
            resume(stopped)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    assert (stopped / "last.ckpt").read_bytes() == before
    assert not list(stopped.glob(".*.part"))
    resume(stopped)
    assert_same_run(straight, stopped)


def test_a_missing_checkpoint_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoints.read(tmp_path / "last.ckpt")
