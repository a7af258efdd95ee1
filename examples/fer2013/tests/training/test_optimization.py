"""Losses and schedules, compared with values computed by hand."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from fer2013.configurations.recipes import CONFIGS
from fer2013.training import optimization

LABELS = np.repeat(np.arange(7), (4, 1, 2, 6, 3, 2, 3))  # 21 faces
LOGITS = torch.tensor([[2.0, 0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0, -1], [0, 3, 0, 1, 0, 0, 0]])
TARGETS = torch.tensor([0, 1, 3])


def logs():
    x = LOGITS.double().numpy()
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def test_class_weights_are_balanced():
    weights = optimization.loss(CONFIGS["config2"], LABELS).weight
    expected = [21 / (7 * n) for n in (4, 1, 2, 6, 3, 2, 3)]
    assert weights.tolist() == pytest.approx(expected)
    # all classes have the same total weight
    assert (weights[torch.from_numpy(LABELS)].sum() / 7).item() == pytest.approx(3)


@pytest.mark.parametrize("name", ["config1"])
def test_cross_entropy(name):
    expected = -logs()[[0, 1, 2], [0, 1, 3]].mean()
    assert optimization.loss(CONFIGS[name], LABELS)(LOGITS, TARGETS).item() == pytest.approx(
        expected
    )


@pytest.mark.parametrize("name", ["config2", "config2-modules", "config3"])
def test_class_weighted_cross_entropy(name):
    weights = np.array([21 / 28, 21 / 7, 21 / 42])
    expected = (weights * -logs()[[0, 1, 2], [0, 1, 3]]).sum() / weights.sum()
    assert optimization.loss(CONFIGS[name], LABELS)(LOGITS, TARGETS).item() == pytest.approx(
        expected
    )


@pytest.mark.parametrize("name", ["first", "base", "config4", "config4-original-head", "config5"])
def test_smoothed_cross_entropy(name):
    right = -logs()[[0, 1, 2], [0, 1, 3]]
    expected = (0.9 * right + 0.1 * -logs().mean(axis=1)).mean()
    assert optimization.loss(CONFIGS[name], LABELS)(LOGITS, TARGETS).item() == pytest.approx(
        expected
    )


def begin(config, rates=(1.0,)):
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": r * config.rate} for r in rates]
    return torch.optim.SGD(groups, config.rate, config.momentum)


def test_configuration_1_has_no_schedule():
    config = CONFIGS["config1"]
    assert optimization.schedule(begin(config), config, 100) is None


def test_the_plateau_halves_the_rate():
    config = CONFIGS["config3"]
    optimizer = begin(config)
    schedule = optimization.schedule(optimizer, config, steps=config.epochs * 359)
    assert (schedule["monitor"], schedule["interval"], schedule["frequency"]) == (
        *("val_loss", "step", 359),
    )
    rates = []
    for loss in (1.0, 0.9, 0.91, 0.92, 0.93, 0.94, 0.8, 0.81, 0.82, 0.83, 0.84):
        schedule["scheduler"].step(loss)
        rates.append(optimizer.param_groups[0]["lr"])
    # the fourth epoch without improvement halves the rate
    assert rates == [0.01] * 5 + [0.005] * 5 + [0.0025]


def test_cosine_with_warm_up():
    config = CONFIGS["config5"]
    optimizer = begin(config, rates=(0.6, 1.0))
    schedule = optimization.schedule(optimizer, config, steps=100)
    assert schedule["interval"] == "step"
    rates, momenta = [], []
    for _ in range(100):
        rates.append([group["lr"] for group in optimizer.param_groups])
        momenta.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        schedule["scheduler"].step()
    rates = np.array(rates)
    assert rates[:, 0] == pytest.approx(0.6 * rates[:, 1])
    assert rates[0, 1] == pytest.approx(0.02 / 25)
    assert rates[:, 1].argmax() == 9  # a tenth of the steps
    assert rates[9, 1] == pytest.approx(0.02)
    # half the rate halfway down the cosine
    assert rates[54, 1] == pytest.approx((0.02 + 0.02 / 25e4) / 2)
    assert rates[99, 1] == pytest.approx(0.02 / 25e4)
    assert set(momenta) == {0.9}


def test_one_cycle_moves_the_momentum_too():
    config = CONFIGS["first"]
    optimizer = begin(config)
    schedule = optimization.schedule(optimizer, config, steps=100)["scheduler"]
    momenta = []
    for _ in range(100):
        momenta.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        schedule.step()
    assert (momenta[0], min(momenta), momenta[-1]) == pytest.approx((0.95, 0.85, 0.95))
    assert int(np.argmin(momenta)) == 29


@pytest.mark.parametrize(("weights", "continued"), [("none", False), ("a/first.safetensors", True)])
def test_random_weights_and_those_of_an_earlier_run_have_one_rate(weights, continued):
    config = dataclasses.replace(CONFIGS["config5"], weights=weights)
    from fer2013.networks.architectures import build

    with torch.device("meta"):
        model = build(config)
    groups = optimization.parameter_groups(model, config, continued=continued)
    assert [group["lr"] for group in groups] == [0.02]


@pytest.mark.parametrize("steps", [2, 3, 5, 10])
def test_a_cycle_of_few_steps_rises_and_falls(steps):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], 0.1)
    cycle = optimization.one_cycle(optimizer, steps, 0.2, cycle_momentum=False)["scheduler"]
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) < steps:
            cycle.step()
    assert rates[-1] < 1e-3 < max(rates) <= 0.1
    with pytest.raises(ValueError, match="at least 2 training steps, got 1"):
        optimization.one_cycle(optimizer, 1, 0.2, cycle_momentum=False)
