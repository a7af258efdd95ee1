"""Every configuration: trained layers, optimiser, learning rates, loss and data."""

import dataclasses
import json

import pytest
import torch
from made_up_faces import made_up_faces, write_csv
from torch import nn

from fer2013.__main__ import main
from fer2013.configurations.config import Augmentation, Config, from_dict
from fer2013.configurations.recipes import CONFIGS, find_run
from fer2013.data.splits import divide
from fer2013.networks import architectures
from fer2013.training import initial_weights, optimization
from fer2013.training.train import fingerprint

DECK = [name for name in CONFIGS if CONFIGS[name].split == "deck"]

# name: (trained convolutions, the first trained module of ``features``, trained linear layers)
TRAINED = {
    "first": (8, None, 1),
    "base": (8, None, 1),
    "config1": (0, None, 2),
    "config2": (9, 16, 2),
    "config2-modules": (4, 28, 2),
    "config2-unweighted": (9, 16, 2),
    "config3": (2, 32, 2),
    "config3-random": (2, 32, 2),
    "config4": (2, 32, 2),
    "config4-original-head": (2, 32, 3),
    "config5": (16, 0, 2),
}


def on_meta(config):
    """Return a configuration's network on the meta device: names and shapes without values."""
    with torch.device("meta"):
        model = architectures.build(config)
    optimization.freeze(model, config)
    return model


def trained(model, kind):
    return [n for n, m in model.named_modules() if isinstance(m, kind) and m.weight.requires_grad]


def test_every_configuration_is_tested():
    assert set(TRAINED) == set(CONFIGS)
    assert [
        *("config1", "config2", "config2-modules", "config2-unweighted"),
        *("config3", "config3-random", "config4", "config4-original-head"),
    ] == DECK


@pytest.mark.parametrize("name", CONFIGS)
def test_the_trained_layers(name):
    convolutions, first, linear = TRAINED[name]
    model = on_meta(CONFIGS[name])
    found = trained(model, nn.Conv2d)
    assert len(found) == convolutions
    if first is not None:
        assert found[0] == f"features.{first}"
    assert len(trained(model, nn.Linear)) == linear
    # biases follow their weights
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    wanted = CONFIGS[name].frozen
    assert all(n.startswith("features.") and int(n.split(".")[1]) < wanted for n in frozen)
    held = {
        id(p)
        for group in optimization.parameter_groups(model, CONFIGS[name])
        for p in group["params"]
    }
    assert held == {id(p) for p in model.parameters() if p.requires_grad}


def test_the_last_nine_convolutions_and_the_last_nine_modules():
    features = on_meta(CONFIGS["config2"]).features
    assert len(features) == 37
    assert sum(isinstance(m, nn.Conv2d) for m in features[16:]) == 9
    assert sum(isinstance(m, nn.Conv2d) for m in features[-9:]) == 4
    assert sum(isinstance(m, nn.Conv2d) for m in features[-5:]) == 2
    assert len(features) - 9 == CONFIGS["config2-modules"].frozen
    assert len(features) - 5 == CONFIGS["config3"].frozen


@pytest.mark.parametrize(
    ("name", "kind", "values"),
    [
        ("first", torch.optim.SGD, {"lr": 0.1, "nesterov": True, "weight_decay": 5e-4}),
        ("base", torch.optim.SGD, {"lr": 0.04, "nesterov": True, "weight_decay": 5e-4}),
        ("config1", torch.optim.Adam, {"lr": 1e-4, "weight_decay": 0, "betas": (0.9, 0.999)}),
        ("config2", torch.optim.Adam, {"lr": 1e-4, "weight_decay": 0}),
        ("config2-modules", torch.optim.Adam, {"lr": 1e-4, "weight_decay": 0}),
        (
            "config3",
            torch.optim.SGD,
            {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4, "nesterov": False},
        ),
        ("config4", torch.optim.SGD, {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-3}),
        ("config4-original-head", torch.optim.SGD, {"lr": 0.01, "weight_decay": 1e-3}),
    ],
)
def test_optimisers(name, kind, values):
    config = CONFIGS[name]
    continued = initial_weights.continues(config)
    assert continued == (name == "base")
    optimizer = optimization.optimizer(on_meta(config), config, continued=continued)
    assert type(optimizer) is kind
    assert len(optimizer.param_groups) == 1
    assert {key: optimizer.param_groups[0][key] for key in values} == values


def test_configuration_5_has_lower_rates_for_earlier_blocks():
    config = CONFIGS["config5"]
    model = on_meta(config)
    groups = optimization.parameter_groups(model, config)
    rates = [group["lr"] for group in groups]
    assert rates == pytest.approx([0.02 * 0.8**k for k in (5, 4, 3, 2, 1, 0)])
    # block1 has two convolutions with BatchNorm, block3 four: weight and bias each
    assert [len(group["params"]) for group in groups] == [8, 8, 16, 16, 16, 4]
    names = {id(p): n for n, p in model.named_parameters()}
    assert names[id(groups[0]["params"][0])] == "features.0.weight"
    assert names[id(groups[-1]["params"][-1])] == "head.5.bias"


PROTOCOL = {
    "config1": ("none", False, 0.0),
    "config2": ("none", True, 0.0),
    "config2-modules": ("none", True, 0.0),
    "config2-unweighted": ("none", False, 0.0),
    "config3": ("plateau", True, 0.0),
    "config3-random": ("plateau", True, 0.0),
    "config4": ("plateau", False, 0.1),
    "config4-original-head": ("plateau", False, 0.1),
}


@pytest.mark.parametrize("name", DECK)
def test_the_decks_common_protocol(name):
    config = CONFIGS[name]
    assert (config.schedule, config.class_weights, config.label_smoothing) == PROTOCOL[name]
    weights = "none" if name == "config3-random" else "imagenet"
    assert (config.network, config.weights, config.side) == ("vgg19", weights, 48)
    assert (config.batch_size, config.epochs, config.patience) == (64, 30, 8)
    assert (config.monitor, config.averaging, config.average) == ("val_loss", "single", 0)


def test_configuration_5():
    config = CONFIGS["config5"]
    assert (config.optimizer, config.nesterov, config.weight_decay) == ("sgd", True, 5e-4)
    assert (config.epochs, config.small_epochs, config.batch_size) == (18, 6, 64)
    assert (config.network, config.frozen, config.split) == ("vgg19_bn", 0, "standard")
    assert (config.schedule, config.label_smoothing, config.averaging) == (
        "cosine",
        0.1,
        "ten-crop",
    )
    assert (config.average, config.augmentation.mixup, config.augmentation.crop) == (0.999, 0.2, 44)
    assert (config.weights, config.distillation) == ("pretrain", 0.5)


@pytest.mark.usefixtures("narrow_base")
def test_a_repeated_run_needs_the_same_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_csv(made_up_faces(), tmp_path / "mine.csv")
    write_csv(made_up_faces(seed=1), tmp_path / "other.csv")
    run = {
        "config": dataclasses.asdict(dataclasses.replace(CONFIGS["first"], epochs=1, batch_size=8))
    }
    data = fingerprint(divide(made_up_faces(), "standard", seed=4))
    run |= {"seed": 4, "precision": "32-true", "data": data}
    (tmp_path / "run.json").write_text(json.dumps(run))
    train = ["train", "run.json", "--device", "cpu", "--data"]
    assert main([*train, "other.csv"]) == 2
    assert "run.json was trained on other images, labels or splits" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert main([*train, "mine.csv"]) == 0
    assert json.loads((tmp_path / "runs" / "first" / "run.json").read_text())["data"] == data


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train", "first", "--side", "96"],
            "base network needs images of 48 pixels, got --side 96",
        ),
        (["evaluate", "--device", "abacus"], "expected a device of this machine, such as cpu"),
        (["evaluate", "--weights", "."], "expected a weights file, got the folder ."),
    ],
)
def test_invalid_options_are_errors(arguments, message, csv_file, capsys):
    assert main([*arguments, "--data", str(csv_file)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--epochs", "--devices", "--num-nodes"])
def test_numbers_below_one_are_errors(option, capsys):
    with pytest.raises(SystemExit):
        main(["train", "first", option, "0"])
    assert "expected at least 1, got 0" in capsys.readouterr().err


def test_the_two_heads():
    ours = on_meta(CONFIGS["config3"]).head
    assert [type(m).__name__ for m in ours] == [
        *("AdaptiveAvgPool2d", "Flatten", "Linear", "ReLU", "Dropout", "Linear")
    ]
    assert (ours[2].in_features, ours[2].out_features, ours[4].p, ours[5].out_features) == (
        *(512, 512, 0.5, 7),
    )
    original = on_meta(CONFIGS["config4-original-head"]).head
    assert [m.in_features for m in original if isinstance(m, nn.Linear)] == [25088, 4096, 4096]
    assert original[-1].out_features == 7


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_configurations_round_trip_through_json(config):
    assert from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_configurations_are_found_by_name_and_by_run(tmp_path):
    assert find_run("config3") == (CONFIGS["config3"], {})
    config = Config("own", augmentation=Augmentation(shift=0.3))
    record = {"config": dataclasses.asdict(config), "seed": 4, "precision": "32-true", "data": "x"}
    (tmp_path / "run.json").write_text(json.dumps(record))
    for name in (tmp_path, tmp_path / "run.json"):
        repeated = {"seed": 4, "precision": "32-true", "data": "x"}
        assert find_run(str(name)) == (config, repeated)
    with pytest.raises(ValueError, match=r"expected one of first, base, config1.*got 'config9'"):
        find_run("config9")
    for broken in ("", "[]", '{"config": {"colour": 1}}', '{"config": 3}'):
        (tmp_path / "run.json").write_text(broken)
        with pytest.raises(ValueError, match="is not the record of a run of this version"):
            find_run(str(tmp_path))
