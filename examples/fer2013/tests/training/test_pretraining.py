"""Pretraining on synthetic photographs, and fusing BatchNorm into the convolutions."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from narrow_vgg import NarrowVGG
from PIL import Image
from safetensors import safe_open
from torch import nn

from fer2013.configurations.recipes import CONFIGS
from fer2013.data.tiny_imagenet import photographs
from fer2013.networks import architectures
from fer2013.training import pretraining
from fer2013.training.initial_weights import initialise
from fer2013.training.photograph_classifier import Batches, Recipe
from fer2013.training.pretraining import fused

TINY = Recipe(epochs=2, smallest=32, side=32, batch=8, average=0.9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs of three classes, each with its own colour."""
    place = tmp_path_factory.mktemp("tiny")
    noise = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for number, name in enumerate(("n01", "n02", "n03")):
            (place / split / name).mkdir(parents=True)
            for row in range(count):
                pixels = noise.integers(0, 60, (64, 64, 3), dtype=np.uint8)
                pixels[:, :, number] += 150
                Image.fromarray(pixels).save(place / split / name / f"{row}.JPEG")
    return place


def test_photographs_are_read_by_class_or_from_all_classes_in_turn(folder):
    pixels, classes = photographs(folder, "val")
    assert pixels.shape == (12, 3, 64, 64)
    assert classes.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    strongest = pixels.float().mean(dim=(2, 3)).argmax(dim=1)
    assert strongest.tolist() == classes.tolist()
    again, _ = photographs(folder, "val")  # from the cache
    assert torch.equal(again, pixels)
    few, some = photographs(folder, "val", limit=4)
    assert some.tolist() == [0, 1, 2, 0]
    assert few.float().mean(dim=(2, 3)).argmax(dim=1).tolist() == some.tolist()


def test_missing_photographs_are_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Tiny ImageNet as .*/tiny-imagenet-200\.zip"):
        photographs(tmp_path, "train")
    (tmp_path / "val" / "images").mkdir(parents=True)  # as in the zip
    Image.new("RGB", (64, 64)).save(tmp_path / "val" / "images" / "val_0.JPEG")
    with pytest.raises(FileNotFoundError, match="as val/val_annotations"):
        photographs(tmp_path, "val")


def test_batches_depend_only_on_seed_and_epoch(folder):
    split = photographs(folder, "train")
    options = {"batch": 8, "size": 32, "seed": 0}
    first, second = (list(Batches(split, epoch=0, **options)) for _ in range(2))
    assert len(first) == len(Batches(split, epoch=0, **options)) == 3
    for (images, classes), (others, known) in zip(first, second, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(classes, known)
        assert images.shape == (8, 3, 32, 32)
        assert images.mean(dim=(2, 3)).argmax(dim=1).tolist() == classes.tolist()
    assert sorted(torch.cat([c for _, c in first]).tolist()) == [0] * 8 + [1] * 8 + [2] * 8
    other = next(iter(Batches(split, epoch=1, **options)))[0]
    assert not torch.equal(other, first[0][0])


def test_sizes_grow_late():
    assert Recipe(epochs=5, smallest=32, side=64).sizes == [32, 32, 32, 36, 64]
    assert Recipe(epochs=1).sizes == [32]
    with pytest.raises(ValueError, match="expected --smallest between 32 and 48 pixels, got 28"):
        Recipe(smallest=28)


def trained_like(model):
    """Set BatchNorm's statistics and factors to random values."""
    generator = torch.Generator().manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.running_mean, layer.bias.data):
                tensor.copy_(0.2 * torch.randn(tensor.shape, generator=generator))
            for tensor in (layer.running_var, layer.weight.data):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return model.eval()


@torch.no_grad()
def test_fusing_batchnorm_keeps_the_output():
    torch.manual_seed(0)
    features = trained_like(NarrowVGG("vgg19_bn")).features
    plain = fused(features)
    images = torch.randn(2, 3, 48, 48)
    expected = features(images)
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(plain(images), expected, rtol=1e-4, atol=1e-4 * expected.max())
    names = NarrowVGG("vgg19").features.state_dict()
    assert {k: v.shape for k, v in plain.state_dict().items()} == {
        k: v.shape for k, v in names.items()
    }


def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


def test_a_resumed_run_has_the_same_weights(folder, tmp_path, monkeypatch):
    recipe = dataclasses.replace(TINY, epochs=6, rate=0.3)
    options = {"device": "cpu", "precision": "32-true"}
    whole = small()
    top1 = pretraining.fit(whole, folder, tmp_path / "whole", recipe, **options)
    assert top1 == 1.0  # three colours

    class StopError(Exception):
        pass

    def stop(self):
        if self.current_epoch == 3:
            raise StopError

    with monkeypatch.context() as patch:
        patch.setattr(pretraining.PhotographClassifier, "on_train_epoch_start", stop, raising=False)
        with pytest.raises(StopError):
            pretraining.fit(small(), folder, tmp_path / "part", recipe, **options)
    resumed = small()
    assert pretraining.fit(resumed, folder, tmp_path / "part", recipe, **options) == 1.0
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value)
    with pytest.raises(ValueError, match="has a run of another recipe"):
        pretraining.fit(small(), folder, tmp_path / "part", TINY, **options)


@pytest.mark.usefixtures("narrow_vgg")
def test_configurations_start_from_the_written_files(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, "vgg19_bn", functools.partial(NarrowVGG, "vgg19_bn"))
    lines = pretraining.pretrain(folder, tmp_path, TINY, device="cpu")
    assert lines[0].startswith("top-1 on Tiny ImageNet")
    images = torch.rand(2, 1, 48, 48)
    found = {}
    for network, config in (("vgg19_bn", "config5"), ("vgg19", "config3")):
        chosen = dataclasses.replace(
            CONFIGS[config], weights=str(tmp_path / f"{network}.safetensors")
        )
        model = architectures.build(chosen)
        initialise(model, chosen, tmp_path)
        with torch.no_grad():
            found[network] = model.eval().features((images - model.mean) / model.deviation)
    torch.testing.assert_close(found["vgg19"], found["vgg19_bn"], rtol=1e-3, atol=1e-4)

    # A further run starts from these weights, and keeps them at a rate of almost 0.
    begun = str(tmp_path / "last.ckpt")
    more = dataclasses.replace(TINY, epochs=1, rate=1e-9, average=0.0, start=begun)
    pretraining.pretrain(folder, tmp_path / "more", more, device="cpu")
    with safe_open(tmp_path / "more" / "vgg19_bn.safetensors", "pt") as after:
        assert after.metadata()["epochs"] == "3"
        with safe_open(tmp_path / "vgg19_bn.safetensors", "pt") as before:
            name = "features.0.weight"
            torch.testing.assert_close(after.get_tensor(name), before.get_tensor(name))


def test_runs_start_from_finished_runs_only(tmp_path):
    start, last = tmp_path / "start.ckpt", tmp_path / "run" / "last.ckpt"
    recipe = dataclasses.replace(TINY, start=str(start))
    model, other = nn.Linear(2, 1), nn.Linear(2, 1)
    with pytest.raises(FileNotFoundError):
        pretraining._begin(model, recipe, last)

    def write(path, network, epoch, **more):
        path.parent.mkdir(exist_ok=True)
        state = {f"model.{name}": value for name, value in network.state_dict().items()}
        values = {"epochs": 2, **more}
        checkpoint = {"hyper_parameters": values, "epoch": epoch, "state_dict": state}
        torch.save({"callbacks": {}, **checkpoint}, path)

    write(start, nn.Linear(3, 1), epoch=1)
    with pytest.raises(ValueError, match=r"--start as a checkpoint of pretrain.*another shape"):
        pretraining._begin(model, recipe, last)
    write(start, other, epoch=0)
    with pytest.raises(ValueError, match="after 1 of 2 epochs: resume it first"):
        pretraining._begin(model, recipe, last)
    write(start, other, epoch=1, epochs_before=3)
    assert pretraining._begin(model, recipe, last) == 5
    assert torch.equal(model.weight, other.weight)
    # A stopped run resumes from its own checkpoint, without that of the earlier run.
    start.unlink()
    write(last, other, epoch=0, epochs_before=5)
    assert pretraining._begin(nn.Linear(2, 1), recipe, last) == 5
