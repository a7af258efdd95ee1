"""Every spelling of ReLU takes the rule; what has no rule is refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from camlens.intercept import UNRULED as UNRULED_NAMES
from camlens.intercept import BackwardRule, Interception
from camlens.methods import gradient as rules

from .nets import SPELLINGS, Small


@pytest.fixture
def images():
    return torch.rand(3, 3, 8, 8)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("rule", [rules.plain_rule, rules.deconvnet_rule, rules.guided_rule])
def test_every_spelling_of_relu_takes_the_rule(images, spelling, rule):
    model = Small(spelling).eval()
    x = images.clone().requires_grad_()
    with BackwardRule(rule) as mode:
        scores = model(x)[:, 1]
    actual = torch.autograd.grad(scores.sum(), x)[0]
    assert mode.count == 2

    # by hand, module by module, from the top
    a1 = model.norm1(model.conv1(images)).detach().requires_grad_()
    a2 = model.norm2(model.conv2(a1.relu())).detach().requires_grad_()
    g2 = (model.head.weight[1] / 16).view(1, 8, 1, 1).expand_as(a2).detach()
    g2 = rule(g2, a2.relu())
    r1 = a1.detach().relu().requires_grad_()
    g1 = torch.autograd.grad(model.norm2(model.conv2(r1)), r1, g2)[0]
    g1 = rule(g1, a1.relu())
    x0 = images.clone().requires_grad_()
    expected = torch.autograd.grad(model.norm1(model.conv1(x0)), x0, g1)[0]
    assert expected.any()
    assert_close(actual, expected)


def test_the_rule_can_change_between_two_backward_passes():
    x = torch.tensor([-1.0, 1.0, 2.0], requires_grad=True)
    weights = torch.tensor([1.0, -1.0, 1.0])
    with BackwardRule(rules.plain_rule) as mode:
        score = (x.relu() * weights).sum()
    plain = torch.autograd.grad(score, x, retain_graph=True)[0]
    mode.rule = rules.guided_rule
    guided = torch.autograd.grad(score, x)[0]
    assert plain.tolist() == [0, -1, 1]
    assert guided.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    "relu6", [nn.ReLU6(), nn.ReLU6(inplace=True), functional.relu6, nn.Hardtanh(0, 6)]
)
def test_relu6_is_silent_above_six(relu6):
    x = torch.tensor([-1.0, 3.0, 7.0], requires_grad=True)
    with BackwardRule(rules.guided_rule):
        y = relu6(x.clone())
    assert y.tolist() == [0, 3, 6]
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [0, 1, 0]


UNRULED = {
    nn.LeakyReLU(): "leaky_relu",
    nn.PReLU(): "prelu",
    nn.RReLU().eval(): "rrelu",
    nn.ELU(): "elu",
    nn.SELU(): "selu",
    nn.CELU(): "celu",
    nn.GELU(): "gelu",
    nn.SiLU(): "silu",
    nn.Mish(): "mish",
    nn.GLU(): "glu",
    nn.Hardswish(): "hardswish",
    nn.Hardtanh(): "hardtanh",
    nn.Threshold(0.1, 0.0): "threshold",
    nn.Softplus(): "softplus",
    nn.LogSigmoid(): "log_sigmoid",
    nn.Softsign(): "softsign",
    nn.Softshrink(): "softshrink",
    nn.Hardshrink(): "hardshrink",
    nn.Tanhshrink(): "tanhshrink",
}


def test_every_activation_without_a_rule_is_tested():
    assert set(UNRULED.values()) == UNRULED_NAMES


@pytest.mark.parametrize(("activation", "name"), UNRULED.items(), ids=UNRULED.values())
def test_activations_without_a_rule(activation, name):
    with (
        pytest.raises(ValueError, match=f"ReLU6; this model also uses {name}"),
        BackwardRule(rules.guided_rule),
    ):
        activation(torch.rand(4).relu())


@pytest.mark.parametrize(
    "relu",
    [
        lambda x: x.clamp(min=0),
        lambda x: torch.clamp(x, 0),
        lambda x: x.clamp_min(0.0),
        lambda x: x.clamp_(min=0),
        lambda x: torch.clip(x, 0, 9),
    ],
)
def test_a_clamp_at_zero_is_a_relu(relu):
    x = torch.tensor([-1.0, 1.0, 2.0], requires_grad=True)
    with BackwardRule(rules.deconvnet_rule) as mode:
        y = relu(x.clone())
    assert mode.count == 1
    gradient = torch.autograd.grad((y * torch.tensor([1.0, -1.0, 1.0])).sum(), x)[0]
    assert gradient.tolist() == [1, 0, 1]


def test_other_clamps_are_arithmetic():
    x = torch.tensor([-1.0, 1.0], requires_grad=True)
    with BackwardRule(rules.deconvnet_rule) as mode:
        y = x.clamp(-0.5, 0.5) + x.clamp_min(0.1) + x.clamp(max=0) + x.relu()
    assert mode.count == 1
    assert_close(y, torch.tensor([-0.5 + 0.1 - 1, 0.5 + 1 + 0 + 1]))
    assert torch.tensor([5]).clamp(0, 3).tolist() == [3]


def test_no_relu_at_all():
    rule = BackwardRule(rules.guided_rule)
    with rule:
        torch.rand(3).sigmoid()
    with pytest.raises(ValueError, match=r"no ReLU ran: .*camlens\.Saliency"):
        rule.check_used()


def test_the_mode_ends_with_the_block():
    with BackwardRule(rules.deconvnet_rule):
        torch.rand(3).relu()
    x = torch.tensor([-1.0], requires_grad=True)
    assert torch.autograd.grad(x.relu().sum(), x)[0].item() == 0


@pytest.mark.parametrize("flag", ["live", "suspended"])
def test_a_mode_that_is_switched_off_lets_every_call_through(flag):
    rule = BackwardRule(rules.deconvnet_rule)
    x = torch.tensor([-1.0, 1.0], requires_grad=True)
    with rule:
        setattr(rule, flag, flag == "suspended")
        y = x.relu()
        nn.functional.gelu(x)
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [0, 1]
    assert rule.count == 0


def test_only_dead_modes_of_camlens_are_discarded():
    foreign, live, dead = torch.overrides.BaseTorchFunctionMode(), Interception(), Interception()
    for mode in (foreign, live, dead):
        mode.__enter__()
    dead.live = False
    Interception.discard_dead()
    assert torch._C._len_torch_function_stack() == 2
    live.live = False
    Interception.discard_dead()
    assert torch._C._len_torch_function_stack() == 1
    Interception.discard_dead()
    assert torch._C._len_torch_function_stack() == 1
    foreign.__exit__(None, None, None)


@pytest.mark.parametrize("rule", [rules.plain_rule, rules.deconvnet_rule, rules.guided_rule])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_second_derivatives_pass_a_rule(rule, spelling):
    """With create_graph the rule's gradients are differentiated by what they were made of."""
    x = torch.tensor([-1.0, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    w = torch.tensor([0.5, -1.0, 3.0], dtype=torch.float64, requires_grad=True)
    with BackwardRule(rule):
        y = Small(spelling).rectify(x.clone())
    gradient = torch.autograd.grad((w * y).sum(), x, create_graph=True)[0]
    passed = {
        rules.plain_rule: [0, 1, 1],
        rules.deconvnet_rule: [1, 0, 1],
        rules.guided_rule: [0, 0, 1],
    }[rule]
    by_w = torch.autograd.grad(gradient.sum(), w)[0]
    assert by_w.tolist() == passed
