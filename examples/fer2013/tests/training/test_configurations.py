"""Every configuration trains for a few steps, on synthetic images and from random weights.

VGG19 and the base network are narrow here. ``test_parallel.py`` and the exhaustive tests train the
real VGG19, and ``test_train.py`` the real base network.
"""

import dataclasses
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import lightning
import numpy as np
import pandas as pd
import pytest
import torch
from made_up_faces import made_up_faces

from fer2013.configurations.config import Augmentation, from_dict
from fer2013.configurations.recipes import CONFIGS
from fer2013.data.faces import CLASSES
from fer2013.data.splits import divide
from fer2013.evaluation.accuracy import evaluate
from fer2013.networks import weights
from fer2013.training import optimization
from fer2013.training.lightning_module import EmotionClassifier
from fer2013.training.train import Machine, train

CPU = Machine(device="cpu", precision="32-true")
FILES = ["best.ckpt", "curves.png", "history.csv", "last.ckpt", "metrics.json", "run.json"]


@pytest.fixture
def folder(tmp_path):
    """A run's folder, removed after the test, as a VGG19's checkpoints are large."""
    yield tmp_path / "run"
    shutil.rmtree(tmp_path / "run", ignore_errors=True)


def beginning(config):
    """Return the random initial weights of a run."""
    lightning.seed_everything(3, verbose=False)
    return EmotionClassifier(config, {"seed": 3}, torch.nn.CrossEntropyLoss()).model.state_dict()


@pytest.mark.usefixtures("narrow_vgg", "narrow_base")
@pytest.mark.parametrize("name", CONFIGS)
def test_each_configuration_trains(name, folder):
    faces = made_up_faces(training=6, public=2)
    config = dataclasses.replace(
        CONFIGS[name],
        weights="none",
        epochs=1,
        batch_size=12,
        small_epochs=min(1, CONFIGS[name].small_epochs),
    )
    path = train(config, faces, out=folder, seed=3, machine=CPU)
    assert sorted(p.name for p in folder.iterdir()) == sorted([*FILES, f"{name}.safetensors"])

    # only trainable weights change
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    # the weights themselves, not their moving average
    state = saved.get("current_model_state", saved["state_dict"])
    model = EmotionClassifier(config, {"seed": 3}, torch.nn.CrossEntropyLoss()).model
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    for key, before in beginning(config).items():
        kept = torch.equal(state[f"model.{key}"], before)
        assert kept == (key not in trained and "running" not in key and "tracked" not in key), key

    parts = divide(faces, config.split, seed=3)
    steps = len(parts.train) // 12
    assert saved["global_step"] == steps
    assert ("loss.weight" in saved["state_dict"]) == config.class_weights
    if config.class_weights:
        expected = optimization.loss(config, parts.train.labels).weight
        assert torch.equal(saved["state_dict"]["loss.weight"], expected)
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
    assert json.loads((folder / "metrics.json").read_text())["accuracy"] == measured.accuracy
    assert facts["report"] == measured.report
    assert facts["trained_on"] == f"FER2013 Training, {len(parts.train)} faces"
    where = "a fifth of Training" if config.split == "deck" else "PublicTest"
    assert facts["selected_on"] == f"FER2013 {where}, {len(parts.validation)} faces"
    assert weights.config_of(facts) == config


@pytest.mark.parametrize("mixup", [0.0, 0.2])
def test_distilled_labels_blend_labels_and_teacher(mixup, monkeypatch):
    """Three tenths of a label are the base network's probabilities for the augmented image."""
    changes = {"network": "base", "weights": "none", "side": 48, "distillation": 0.3}
    augmentation = Augmentation(crop=44, mixup=mixup)
    config = dataclasses.replace(
        CONFIGS["config5"], **changes, small_epochs=0, augmentation=augmentation
    )
    classifier = EmotionClassifier(config, {"seed": 3}, torch.nn.CrossEntropyLoss()).train()
    found = {}
    classifier.trainer = SimpleNamespace(
        global_step=0, current_epoch=0, global_rank=0, world_size=1
    )
    monkeypatch.setattr(classifier, "log", lambda *_, **__: None)
    classifier.model.register_forward_pre_hook(lambda _, x: found.update(faces=x[0]))
    classifier.loss.register_forward_pre_hook(lambda _, x: found.update(labels=x[1]))
    labels = torch.tensor([3, 0, 6, 3])
    classifier.training_step((torch.rand(4, 1, 48, 48), labels), 0)
    with torch.no_grad():
        faces = torch.nn.functional.interpolate(found["faces"], (48, 48), mode="bilinear")
        teacher = weights.load()(faces).softmax(dim=1)
    given = (found["labels"] - 0.3 * teacher) / 0.7
    torch.testing.assert_close(given.sum(dim=1), torch.ones(4))
    # the rest is the label, mixed up with its neighbour's
    share = given[torch.arange(4), labels].min()
    expected = torch.nn.functional.one_hot(labels, 7).float()
    expected = share * expected + (1 - share) * expected.roll(1, 0)
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-5)
    assert mixup or share == pytest.approx(1)


def test_the_base_network_cannot_teach_in_the_decks_split():
    config = small(distillation=0.5)
    with pytest.raises(ValueError, match="was trained on all of Training: expected the split"):
        train(config, made_up_faces(), out=Path("never"), machine=CPU)


def small(**changes):
    """Return configuration 3 with the fast base network."""
    changes = {"network": "base", "weights": "none", "frozen": 0, "batch_size": 33, **changes}
    return dataclasses.replace(CONFIGS["config3"], **changes)


def worsening(self, batch, _):
    self.log("val_loss", 1.0 + self.current_epoch)
    self.log("val_accuracy", 0.5)


@pytest.mark.usefixtures("narrow_base")
def test_plateau_and_early_stop(folder, monkeypatch):
    """The rate is halved after 4 epochs without improvement, and the run stops after 8."""
    monkeypatch.setattr(EmotionClassifier, "validation_step", worsening)
    path = train(small(), made_up_faces(training=6), out=folder, machine=CPU)
    history = pd.read_csv(folder / "history.csv")
    assert history.val_loss.tolist() == list(range(1, 10))
    assert history.rate.tolist() == [0.01] * 4 + [0.005] * 4 + [0.0025]
    assert weights.read_facts(path)["best_epoch"] == 1

    # killed after stopping early and before its export: it is not trained further
    path.unlink()

    def never(self, batch, index):
        raise AssertionError("trained on")

    monkeypatch.setattr(EmotionClassifier, "training_step", never)
    assert train(small(), made_up_faces(training=6), out=folder, machine=CPU) == path
    assert len(pd.read_csv(folder / "history.csv")) == 9


@pytest.mark.usefixtures("narrow_base")
def test_a_resumed_run_keeps_the_state_of_the_plateau(folder, monkeypatch):
    monkeypatch.setattr(EmotionClassifier, "validation_step", worsening)
    step = EmotionClassifier.training_step

    def cut(self, batch, index):
        if self.current_epoch == 3:
            raise RuntimeError("power cut")
        return step(self, batch, index)

    config = small(epochs=6)
    monkeypatch.setattr(EmotionClassifier, "training_step", cut)
    with pytest.raises(RuntimeError, match="power cut"):
        train(config, made_up_faces(training=6), out=folder, machine=CPU)
    monkeypatch.setattr(EmotionClassifier, "training_step", step)
    train(config, made_up_faces(training=6), out=folder, machine=CPU)
    rates = pd.read_csv(folder / "history.csv").rate.tolist()
    assert rates == [0.01] * 4 + [0.005] * 2


@pytest.mark.usefixtures("narrow_base")
def test_a_diverged_run_is_an_error(folder):
    config = small(rate=1e30, epochs=3, batch_size=8)
    with pytest.raises(ValueError, match="training loss of epoch 1 is nan: the run has diverged"):
        train(config, made_up_faces(training=6), out=folder, machine=CPU)


@pytest.mark.usefixtures("narrow_base")
def test_an_infinite_validation_loss_is_an_error(folder, monkeypatch):
    def infinite(self, batch, _):
        self.log("val_loss", float("inf") if self.current_epoch == 1 else 1.0)
        self.log("val_accuracy", 0.5)

    monkeypatch.setattr(EmotionClassifier, "validation_step", infinite)
    with pytest.raises(ValueError, match="validation loss of epoch 2 is inf: the run has diverged"):
        train(small(epochs=4), made_up_faces(training=6), out=folder, machine=CPU)
    assert not list(folder.glob("*.safetensors"))
    assert pd.read_csv(folder / "history.csv").epoch.tolist() == [1]


@pytest.mark.usefixtures("narrow_vgg", "narrow_base")
@pytest.mark.parametrize("name", ["config2", "config4"])
def test_training_uses_the_configured_loss(name, folder, monkeypatch):
    """One batch with a rare class, compared with the formula."""
    seen = []
    step = EmotionClassifier.training_step

    def watched(self, batch, index):
        faces, labels = batch
        loss = step(self, batch, index)
        with torch.no_grad():
            self.model.eval()
            logits = self.model(faces).float()
            self.model.train()
        seen.append((labels, logits, loss.detach()))
        return loss

    monkeypatch.setattr(EmotionClassifier, "training_step", watched)
    config = dataclasses.replace(CONFIGS[name], weights="none", epochs=1, dropout=0.0)
    config = dataclasses.replace(config, batch_size=20, split="standard")
    config = dataclasses.replace(config, augmentation=Augmentation(mirror=0.0, rotation=0.0))
    faces = made_up_faces(training=4, public=1)
    rare = faces.labels == 3
    rare[rare.nonzero()[0][0]] = False
    faces = faces.take(~rare | (faces.usages != 0))
    train(config, faces, out=folder, seed=3, machine=CPU)
    labels, logits, loss = seen[0]
    log = logits.log_softmax(dim=1)
    right = -log[torch.arange(len(labels)), labels]
    counts = torch.bincount(torch.from_numpy(faces.labels[faces.usages == 0]), minlength=7)
    if name == "config2":
        weight = (counts.sum() / (7 * counts))[labels]
        expected = (weight * right).sum() / weight.sum()
    else:
        expected = (0.9 * right + 0.1 * -log.mean(dim=1)).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


def by_the_decks_protocol(name, folder, training_faces):
    """Run one epoch with the deck's batch size of 64 on 350 real images, beside PublicTest's."""
    kept = np.array([np.flatnonzero(training_faces.labels == c)[:58] for c in range(7)])
    faces = training_faces.take(kept.T.ravel())
    faces = dataclasses.replace(faces, usages=np.repeat([0, 1], [350, 56]))
    config = dataclasses.replace(CONFIGS[name], weights="none", epochs=1)
    path = train(config, faces, out=folder, seed=3, machine=CPU)
    history = pd.read_csv(folder / "history.csv")
    # the loss of chance, log 7
    assert history.train_loss[0] == pytest.approx(math.log(7), abs=0.15)
    assert weights.read_facts(path)["trained_on"] == "FER2013 Training, 280 faces"
    report = weights.read_facts(path)["report"]
    assert sum(report[emotion]["support"] for emotion in CLASSES) == 70


@pytest.mark.shared
@pytest.mark.usefixtures("narrow_vgg", "narrow_base")
def test_real_images_with_a_narrow_vgg19(folder, training_faces):
    by_the_decks_protocol("config4", folder, training_faces)


@pytest.mark.exhaustive
@pytest.mark.shared
@pytest.mark.parametrize("name", ["config1", "config2", "config3", "config4"])
def test_real_images_with_a_full_vgg19(name, folder, training_faces):
    by_the_decks_protocol(name, folder, training_faces)
