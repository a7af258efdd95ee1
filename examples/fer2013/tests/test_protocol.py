"""Every configuration trains for a few steps, end to end, on made-up faces and random weights."""

import dataclasses
import json
import shutil

import lightning
import pandas as pd
import pytest
import torch
from crowd import crowd

from fer2013 import optimization, weights
from fer2013.config import CONFIGS, from_dict
from fer2013.evaluate import evaluate
from fer2013.splits import divide
from fer2013.task import EmotionTask
from fer2013.train import Machine, train

CPU = Machine(device="cpu", precision="32-true", workers=0)
FILES = ["best.ckpt", "curves.png", "history.csv", "last.ckpt", "run.json"]


@pytest.fixture
def folder(tmp_path):
    """A run's folder that is removed: VGG19's checkpoints are large."""
    yield tmp_path / "run"
    shutil.rmtree(tmp_path / "run", ignore_errors=True)


def beginning(config):
    """Return the weights that a run without pretrained ones begins with."""
    lightning.seed_everything(3, verbose=False)
    return EmotionTask(config, {"seed": 3}, torch.nn.CrossEntropyLoss()).model.state_dict()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_few_steps(name, folder):
    faces = crowd(training=6, public=2)
    config = dataclasses.replace(
        CONFIGS[name], weights="none", epochs=1, batch_size=12, small_epochs=0
    )
    path = train(config, faces, out=folder, seed=3, machine=CPU)
    assert sorted(p.name for p in folder.iterdir()) == sorted([*FILES, f"{name}.safetensors"])

    # what is frozen keeps every bit, what is trained has moved
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    # the trained weights themselves, not their moving average
    state = saved.get("current_model_state", saved["state_dict"])
    model = EmotionTask(config, {"seed": 3}, torch.nn.CrossEntropyLoss()).model
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    for key, before in beginning(config).items():
        kept = torch.equal(state[f"model.{key}"], before)
        assert kept == (key not in trained and "running" not in key and "tracked" not in key), key

    parts = divide(faces, config.split, seed=3)
    steps = len(parts.train) // 12
    assert saved["global_step"] == steps
    assert "loss.weight" not in saved["state_dict"] or torch.equal(
        saved["state_dict"]["loss.weight"], optimization.class_weights(parts.train.labels)
    )
    record = json.loads((folder / "run.json").read_text())
    assert from_dict(record["config"]) == config
    assert (record["seed"], record["precision"]) == (3, "32-true")
    assert pd.read_csv(folder / "history.csv").epoch.tolist() == [1]

    facts = weights.read_facts(path)
    measured = evaluate(
        weights.load(path),
        parts.validation,
        averaging=config.averaging,
        crop=config.augmentation.crop,
    )
    assert facts["accuracy"] == measured.accuracy
    assert facts["report"] == measured.report
    assert facts["trained_on"] == f"FER2013 Training, {len(parts.train)} faces"
    where = "a fifth of Training" if config.split == "deck" else "PublicTest"
    assert facts["selected_on"] == f"FER2013 {where}, {len(parts.validation)} faces"
    assert weights.config_of(facts) == config


def small(**changes):
    """Return configuration 3's recipe on a network that is quick."""
    changes = {"network": "base", "weights": "none", "frozen": 0, "batch_size": 33, **changes}
    return dataclasses.replace(CONFIGS["config3"], **changes)


def worsening(self, batch, _):
    self.log("val_loss", 1.0 + self.current_epoch)
    self.log("val_accuracy", 0.5)


def test_plateau_and_early_stop(folder, monkeypatch):
    """The rate is halved after four epochs without a better one, the run stops after eight."""
    monkeypatch.setattr(EmotionTask, "validation_step", worsening)
    path = train(small(), crowd(training=6), out=folder, machine=CPU)
    history = pd.read_csv(folder / "history.csv")
    assert history.val_loss.tolist() == list(range(1, 10))
    assert history.rate.tolist() == [0.01] * 4 + [0.005] * 4 + [0.0025]
    assert weights.read_facts(path)["best_epoch"] == 1

    # killed after it had stopped, before its file was written: it is not trained further
    path.unlink()

    def never(self, batch, index):
        raise AssertionError("trained on")

    monkeypatch.setattr(EmotionTask, "training_step", never)
    assert train(small(), crowd(training=6), out=folder, machine=CPU) == path
    assert len(pd.read_csv(folder / "history.csv")) == 9


def test_a_resumed_run_remembers_the_plateau(folder, monkeypatch):
    monkeypatch.setattr(EmotionTask, "validation_step", worsening)
    step = EmotionTask.training_step

    def cut(self, batch, index):
        if self.current_epoch == 3:
            raise RuntimeError("power cut")
        return step(self, batch, index)

    config = small(epochs=6)
    monkeypatch.setattr(EmotionTask, "training_step", cut)
    with pytest.raises(RuntimeError, match="power cut"):
        train(config, crowd(training=6), out=folder, machine=CPU)
    monkeypatch.setattr(EmotionTask, "training_step", step)
    train(config, crowd(training=6), out=folder, machine=CPU)
    rates = pd.read_csv(folder / "history.csv").rate.tolist()
    assert rates == [0.01] * 4 + [0.005] * 2


def test_a_diverged_run_says_so(folder):
    config = small(rate=1e30, epochs=3, batch_size=8)
    with pytest.raises(ValueError, match="training loss of epoch 1 is nan: the run has diverged"):
        train(config, crowd(training=6), out=folder, machine=CPU)
