"""Relevance through a function mode: what is seen, merged, passed on and refused."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.testing import assert_close

from camlens.intercept import AttentionRelevance, Relevance, Rules
from camlens.intercept.attention_by_definition import multi_head
from camlens.methods.relevance import Epsilon, Gamma, ZBox, ZPlus

PLUS = Rules(Epsilon(), ZPlus())
LRP_0 = Rules(Epsilon(0.0), Epsilon(0.0))


def relevance(model, images, rules=PLUS, mode=Relevance, target=0, **options):
    """Relevance of one score, by the mode alone; of a function all leaves but one are constants."""
    leaf = images.clone().requires_grad_()
    constants = list(model.parameters()) if isinstance(model, nn.Module) else _Others(leaf)
    intercept = mode(rules, constants, **options)
    if not isinstance(model, nn.Module):
        intercept.graph._constants = constants
    with intercept:
        scores = model(leaf.clone())
    intercept.check_used()
    score = scores.flatten(1)[:, target]
    intercept.check(score)
    (gradient,) = torch.autograd.grad(score.sum(), leaf)
    return gradient if intercept.first_ruled else gradient * images


class _Others:
    """All tensors but one, as what is no evidence."""

    def __init__(self, leaf):
        self.leaf = leaf

    def __contains__(self, identity):
        return identity != id(self.leaf)

    def __iter__(self):
        return iter(())


def seeded(make, seed=0):
    torch.manual_seed(seed)
    model = make().double().eval()
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model


def images(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


# Convolutions and BatchNorm.


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, padding=1, stride=2, bias=False),
        nn.Conv2d(4, 6, 3, padding="same", dilation=2),
        nn.Conv2d(4, 6, (2, 3), padding="same", groups=2),
        nn.Conv2d(4, 6, 3, padding="valid"),
        nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
    ],
    ids=str,
)
@pytest.mark.parametrize("rule", [Epsilon(1e-3), ZPlus(), Gamma()])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_a_convolution_is_a_dense_layer_of_its_matrix(layer, rule):
    """The matrix by columns: what the convolution makes of each unit image."""
    layer = layer.double().eval()
    x = images(2, 4, 5, 6)
    with torch.no_grad():
        shift = layer(torch.zeros(1, 4, 5, 6).double()).flatten()
        matrix = layer(torch.eye(120).double().view(120, 4, 5, 6)).flatten(1) - shift
    dense = nn.Linear(120, len(shift)).double()
    with torch.no_grad():
        dense.weight.copy_(matrix.T)
        dense.bias.copy_(shift)
    rules = Rules(rule, rule)
    for target in (0, 7):
        expected = relevance(nn.Sequential(nn.Flatten(), dense), x, rules, target=target)
        actual = relevance(nn.Sequential(layer, nn.Flatten()), x, rules, target=target)
        if layer.padding_mode == "reflect" and not isinstance(rule, Epsilon):
            continue  # a pixel that is repeated has two weights of an output, not their sum
        assert_close(actual, expected)


def merged(model, at, norm_at):
    """Merge a BatchNorm into a convolution by its definition, into a copy of the weights."""
    layer, norm = model[at], model[norm_at]
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    new = type(layer)(
        layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding
    ).double()
    dimension = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    shape = [1] * layer.weight.ndim
    shape[dimension] = -1
    bias = torch.zeros_like(scale) if layer.bias is None else layer.bias
    new.weight = nn.Parameter(layer.weight * scale.view(shape))
    new.bias = nn.Parameter((bias - norm.running_mean) * scale + norm.bias)
    return nn.Sequential(*model[:at], new, *model[norm_at + 1 :]).eval()


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rules", [PLUS, Rules(Epsilon(), Gamma())])
def test_batch_norm_is_merged_into_the_layer_before_it(kind, bias, rules):
    model = seeded(
        lambda: nn.Sequential(
            *(kind(3, 5, 3, padding=1, bias=bias), nn.BatchNorm2d(5), nn.ReLU(inplace=True)),
            *(kind(5, 4, 3, bias=bias), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()),
        )
    )
    x = images(2, 3, 6, 6)
    target = int(model(x).sum(0).argmax())
    expected = relevance(merged(merged(model, 0, 1), 2, 3), x, rules, target=target)
    assert expected.abs().max() > 0
    assert_close(relevance(model, x, rules, target=target), expected)


def test_batch_norm_after_a_linear_layer_and_after_another_norm():
    model = seeded(
        lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4), nn.ReLU())
    )
    x = images(3, 6)
    layer = nn.Linear(6, 4).double()
    with torch.no_grad():
        layer.bias.copy_(model(torch.zeros(1, 6).double())[0])
        whole = model[2](model[1](model[0](torch.eye(6).double())))
        shift = model[2](model[1](model[0](torch.zeros(1, 6).double())))
        layer.weight.copy_((whole - shift).T)
        layer.bias.copy_(shift[0])
    expected = relevance(nn.Sequential(layer, nn.ReLU()), x, target=1)
    assert_close(relevance(model, x, target=1), expected)


@pytest.mark.parametrize("rule", [ZPlus(), Gamma()])
def test_batch_norm_elsewhere_is_a_convolution_of_each_channel(rule):
    model = seeded(
        lambda: nn.Sequential(
            *(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.ReLU()),
            *(nn.Conv2d(4, 2, 3), nn.Flatten()),
        )
    )
    norm = model[2]
    each = nn.Conv2d(4, 4, 1, groups=4).double()
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    each.weight = nn.Parameter(scale.view(4, 1, 1, 1))
    each.bias = nn.Parameter(norm.bias - norm.running_mean * scale)
    other = nn.Sequential(*model[:2], each, *model[3:])
    rules = Rules(Epsilon(), rule)
    x = images(2, 3, 6, 6)
    assert_close(relevance(model, x, rules), relevance(other, x, rules))


def test_two_branches_of_one_input_each_take_their_own_norm():
    """The second convolution runs before the first one's norm."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
            self.na, self.nb = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
            self.late = False

        def forward(self, x):
            if self.late:
                a, b = self.a(x), self.b(x)
                return (self.na(a) + self.nb(b)).relu().flatten(1)
            return (self.na(self.a(x)) + self.nb(self.b(x))).relu().flatten(1)

    model, x = seeded(Branches), images(2, 3, 4, 4)
    expected = relevance(model, x, target=2)
    model.late = True
    assert_close(relevance(model, x, target=2), expected)


# What passes as the graph says.


class Residual(nn.Module):
    def __init__(self, spelling):
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head, self.spelling = nn.Linear(4, 3), spelling

    def forward(self, x):
        x = self.stem(x).relu()
        out = self.inner(x)
        if self.spelling == "+":
            out = out + x
        elif self.spelling == "+=":
            out += x
        elif self.spelling == "add_":
            out.add_(x)
        else:
            out = torch.add(x, out)
        out = F.relu(out, inplace=self.spelling == "add_")
        return self.head(out.mean((2, 3)))


@pytest.mark.parametrize("spelling", ["+", "+=", "add_", "torch.add"])
def test_a_residual_sum_is_shared_out_in_proportion(spelling):
    """Layer by layer from the top, by formulas that divide by what the graph does not."""
    model, x = seeded(lambda: Residual(spelling)), images(2, 3, 6, 6)
    with torch.no_grad():
        stem = model.stem(x).relu()
        inner = model.inner(stem)
        pooled = (inner + stem).relu()
        mean = pooled.mean((2, 3))
        score = model.head(mean)[:, 1:2]
        r = mean * model.head.weight[1] * score / (score + 1e-6 * score.sign())
        r = pooled / pooled.sum((2, 3), keepdim=True) * r[..., None, None]
        total = torch.where(pooled > 0, inner + stem, 1)
        r_stem, r_inner = stem / total * r, inner / total * r
        r_stem = r_stem + plus(model.inner, stem, r_inner)
        expected = plus(model.stem, x, r_stem)
    assert_close(relevance(model, x, target=1), expected)


def plus(layer, a, relevance):
    """The z+ rule of a convolution, with its gradient taken by autograd of two halves."""
    parts = [a.clamp(min=0).requires_grad_(), a.clamp(max=0).requires_grad_()]
    weights = [layer.weight.detach().clamp(min=0), layer.weight.detach().clamp(max=0)]
    with torch.enable_grad():
        z = F.conv2d(parts[0], weights[0], layer.bias.detach().clamp(min=0), padding=1)
        z = z + F.conv2d(parts[1], weights[1], padding=1)
        grads = torch.autograd.grad(z, parts, (relevance / (z + 1e-6)).detach())
    return (parts[0] * grads[0] + parts[1] * grads[1]).detach()


def same(x):
    return x


def slices(x):
    y = torch.zeros_like(x)
    y[:, :2] = x[:, 2:].relu()
    y[:, 2:] = x[:, :2]
    return y


@pytest.mark.slow
@pytest.mark.parametrize(
    "between",
    [
        nn.ReLU(),
        nn.ReLU(inplace=True),
        F.relu,
        lambda x: F.relu(x, True),
        torch.relu,
        lambda x: x.relu_(),
        lambda x: x.clamp(min=0),
        lambda x: x.clamp_min(0),
        nn.ReLU6(),
        nn.ReLU6(inplace=True),
        lambda x: x.clamp(0, 6),
        nn.Hardtanh(),
        nn.LeakyReLU(0.1),
        nn.PReLU(),
        nn.GELU(),
        nn.SiLU(inplace=True),
        nn.Hardswish(inplace=True),
        nn.Mish(),
        nn.ELU(),
        nn.Tanh(),
        nn.Dropout(),
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, 1, 1),
        nn.AvgPool2d(2),
        nn.AdaptiveMaxPool2d(2),
        nn.AdaptiveAvgPool2d(3),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.ZeroPad2d((1, 0, 2, 1)),
        nn.ReflectionPad2d(1),
        nn.PixelShuffle(2),
        lambda x: torch.cat([x.relu(), -x], dim=1),
        lambda x: x.flatten(2).permute(0, 2, 1).unflatten(1, (6, 6)).permute(0, 3, 1, 2),
        lambda x: x[:, [3, 1, 0]],
        lambda x: x.roll(1, 3).flip(2),
        lambda x: 3 * x / 2 - x,
        lambda x: x * torch.arange(1.0, 5).double().view(4, 1, 1),
        lambda x: torch.stack([x, x.abs()]).amax(0),
        slices,
    ],
    ids=lambda f: getattr(f, "__name__", str(f)).replace("\n", ""),
)
@pytest.mark.parametrize("mode", [Relevance, AttentionRelevance])
def test_without_biases_the_sum_is_the_score(between, mode):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
            self.more = nn.LazyConv2d(4, 1, bias=False)
            self.head = nn.Linear(4, 3, bias=False)

        def forward(self, x):
            x = between(self.conv(x))
            return self.head(self.more(x).relu().mean((2, 3)))

    torch.manual_seed(0)
    model = Net()
    if isinstance(between, nn.Module):
        between.eval().double()
    x = images(2, 3, 6, 6)
    model = model.double().eval()
    with torch.no_grad():
        scores = model(x)
        plain = between(model.conv(x))
    for target in range(3):
        found = relevance(model, x, target=target, mode=mode)
        assert_close(found.sum((1, 2, 3)), scores[:, target], rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(between(model.conv(x)), plain)


def test_a_module_may_run_twice():
    layer = nn.Linear(4, 4, bias=False).double()
    x = images(3, 4)
    first = relevance(lambda v: layer(layer(v).relu()), x)
    other = nn.Linear(4, 4, bias=False).double()
    other.load_state_dict(layer.state_dict())
    assert_close(first, relevance(lambda v: other(layer(v).relu()), x))


def test_weights_of_a_parametrization_are_weights():
    model = nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)))
    model = model.double().eval()
    plain = nn.Linear(4, 2).double()
    plain.load_state_dict({"weight": model[1].weight, "bias": model[1].bias})
    x = images(3, 4)
    assert_close(relevance(model, x), relevance(plain, x))


# What has no rule.


class Unseen(torch.autograd.Function):
    """A function of a user's own, of which nothing is known."""

    @staticmethod
    def forward(ctx, x):
        return x.exp()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
def test_a_scripted_layer_is_not_seen_and_told():
    scripted, head = torch.jit.script(nn.Conv2d(3, 4, 1)), nn.Linear(4, 2)
    with pytest.raises(ValueError, match=r"a layer \(convolution\) whose call camlens cannot see"):
        relevance(lambda x: head(scripted(x).mean((2, 3))), torch.rand(2, 3, 5, 5))


@pytest.mark.parametrize(
    ("between", "name"),
    [
        (lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(), "product of two image-dependent"),
        (torch.sigmoid, "sigmoid"),
        (nn.GroupNorm(2, 4), "native_group_norm"),
        (nn.InstanceNorm2d(4), "native_batch_norm|batch_norm|running statistics"),
        (nn.Softplus(), "softplus"),
        (lambda x: x.square(), "pow"),
        (lambda x: x / x.norm(), "a division by an image-dependent tensor"),
        (lambda x: x @ x.mT, "bmm"),
        (lambda x: F.softmax(x, 1), "softmax"),
        (lambda x: F.scaled_dot_product_attention(x, x, x), "scaled_dot_product|softmax|bmm"),
        (lambda x: F.layer_norm(x, x.shape[1:]), "native_layer_norm"),
        (lambda x: F.conv2d(x, x[:4]), "weights that depend on the image"),
        (Unseen.apply, "unseen"),
        (lambda x: (x[:, :2].sigmoid_(), x)[1], "sigmoid_ on a part of a tensor"),
        (lambda x: F.hardswish(x[:, :2], inplace=True), "hardswish in place on a part"),
        (lambda x: x.clamp(-1, 2).clamp(max=1), "clamp"),
        (lambda x: F.conv2d(x[0], torch.ones(4, 4, 1, 1))[None], "not in a batch"),
    ],
)
def test_what_has_no_rule_is_an_error(between, name):
    torch.manual_seed(0)
    conv, head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)
    if isinstance(between, nn.Module):
        between.eval()
    x = torch.rand(4, 3, 6, 6)

    def model(v):
        return head(between(conv(v)).mean((2, 3))[:, :4].expand(-1, 4))

    with pytest.raises(ValueError, match=rf"LRP (has no rule for|needs).*({name})"):
        relevance(model, x)


def test_batch_norm_of_the_batch_is_an_error():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    model[1].track_running_stats, model[1].running_mean, model[1].running_var = False, None, None
    with pytest.raises(ValueError, match="BatchNorm with running statistics, in eval mode"):
        relevance(model, torch.rand(2, 3, 5, 5))


def test_no_layer_at_all():
    with pytest.raises(ValueError, match="expected a convolution or linear layer"):
        relevance(lambda x: x.mean((2, 3)), torch.rand(2, 3, 5, 5))


@pytest.mark.parametrize("flag", ["live", "suspended"])
def test_a_mode_that_is_switched_off_lets_every_call_through(flag):
    mode = Relevance(PLUS, [])
    setattr(mode, flag, flag == "suspended")
    layer, x = nn.Linear(3, 2), torch.randn(2, 3, requires_grad=True)
    with mode:
        y = layer(x)
    assert mode.count == 0
    assert_close(torch.autograd.grad(y.sum(), x)[0], layer.weight.sum(0).expand(2, 3))


# The first layer.

BOX = Rules(Epsilon(), Gamma(), ZBox(torch.tensor(-4.0).double(), torch.tensor(4.0).double()))


def test_only_the_layer_that_sees_the_image_takes_the_box():
    model = seeded(
        lambda: nn.Sequential(
            *(nn.ZeroPad2d(1), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
            *(nn.Conv2d(4, 2, 3), nn.Flatten()),
        )
    )
    x = images(2, 3, 5, 5)
    whole = relevance(model, x, BOX)
    # by hand: the tail's relevance, shared out by the box
    tail = model[3:]
    layer = merged(model[1:], 0, 1)[0]
    padded = F.pad(x, (1, 1, 1, 1))
    with torch.no_grad():
        z = layer(padded)
    r = relevance(tail, z, Rules(Epsilon(), Gamma()))
    parts = [
        padded.clone().requires_grad_(),
        torch.full_like(padded, -4.0).requires_grad_(),
        torch.full_like(padded, 4.0).requires_grad_(),
    ]
    weight = layer.weight.detach()
    outputs = [
        F.conv2d(p, w)
        for p, w in zip(parts, (weight, weight.clamp(min=0), weight.clamp(max=0)), strict=True)
    ]
    denominator = outputs[0] - outputs[1] - outputs[2]
    share = (r / (denominator + 1e-6)).detach()
    gradients = [torch.autograd.grad(o, p, share)[0] for o, p in zip(outputs, parts, strict=True)]
    expected = parts[0] * gradients[0] - parts[1] * gradients[1] - parts[2] * gradients[2]
    assert_close(whole, expected[:, :, 1:-1, 1:-1].detach())


def test_images_that_change_before_the_first_layer_have_other_bounds():
    layer = nn.Conv2d(3, 4, 3).double()
    with pytest.raises(ValueError, match=r"changes the images \(div\) before its first layer"):
        relevance(lambda x: layer(x / 2).mean((2, 3)), images(2, 3, 5, 5), BOX)
    with pytest.raises(ValueError, match="path around the first layer"):
        relevance(
            lambda x: layer(x).mean((2, 3)) + x.mean((1, 2, 3))[:, None], images(2, 3, 5, 5), BOX
        )


# Attention.


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("mask", [None, "float", "bool", "padding"])
def test_multi_head_attention_written_out_is_itself(separate, batched, mask):
    torch.manual_seed(0)
    sizes = {"kdim": 6, "vdim": 4} if separate else {}
    layer = nn.MultiheadAttention(8, 2, batch_first=batched, **sizes)
    k, v = (6, 4) if separate else (8, 8)
    shapes = [(3, 5, 8), (3, 7, k), (3, 7, v)] if batched else [(5, 8), (7, k), (7, v)]
    tokens = [torch.randn(shape) for shape in shapes]
    options = {
        None: {},
        "float": {"attn_mask": torch.randn(5, 7)},
        "bool": {"attn_mask": torch.rand(5, 7) > 0.7},
        "padding": {"key_padding_mask": (torch.rand(3, 7) if batched else torch.rand(7)) > 0.7},
    }[mask]
    expected, weights = layer(*tokens, **options, average_attn_weights=False)
    seen = {}

    class Replay(AttentionRelevance):
        def replacement(self, spelled):
            if spelled == "multi_head_attention_forward":
                return lambda given: seen.setdefault("out", multi_head(given.values))
            return None

    with Replay(LRP_0, []):
        layer(*(t.requires_grad_() for t in tokens), **options, average_attn_weights=False)
    output, again = seen["out"]
    assert_close(output if not batched else output.transpose(0, 1), expected)
    assert_close(again, weights)


def test_a_softmax_between_two_products_has_the_papers_rule():
    """Equations of Achtibat et al. written out: relevance, not gradients."""
    q, k, v = images(1, 4, 3), images(1, 5, 3) + 0.2, images(1, 5, 2) - 0.1

    def attend(q, k, v):
        return (q @ k.mT).softmax(-1) @ v

    leaves = [t.clone().requires_grad_() for t in (q, k, v)]
    mode = AttentionRelevance(LRP_0, [])
    with mode:
        out = attend(*leaves)
    mode.check(out.sum().view(1, 1))
    found = [g * t for g, t in zip(torch.autograd.grad(out.sum(), leaves), leaves, strict=True)]

    logits = q @ k.mT
    p = logits.softmax(-1)
    o = p @ v
    r = o.clone()  # the score is the sum of the outputs
    each = p.unsqueeze(-1) * v.unsqueeze(1)  # (1, queries, keys, channels): what o is the sum of
    shares = each / o.unsqueeze(2) * r.unsqueeze(2) / 2
    r_p, r_v = shares.sum(3), shares.sum(1)
    r_logits = logits * (r_p - p * r_p.sum(-1, keepdim=True))
    products = q.unsqueeze(2) * k.unsqueeze(1)
    shares = products / logits.unsqueeze(3) * r_logits.unsqueeze(3) / 2
    for actual, expected in zip(found, (shares.sum(2), shares.sum(1), r_v), strict=True):
        assert_close(actual, expected)


@pytest.mark.parametrize(
    "gated",
    [
        lambda a, b: a * b,
        torch.mul,
        lambda a, b: a.clone().mul_(b),
        lambda a, b: torch.einsum("ni,ni->ni", a, b),
        lambda a, b: (a[:, None] @ b[:, :, None]).flatten(1),
        lambda a, b: F.silu(a) * b,
    ],
)
def test_each_factor_has_half_of_the_relevance(gated):
    x = images(2, 6)
    leaf = x.clone().requires_grad_()
    mode = AttentionRelevance(LRP_0, [])
    with mode:
        out = gated(*leaf.clone().chunk(2, dim=1))
    mode.check(out.sum().view(1, 1))
    (gradient,) = torch.autograd.grad(out.sum(), leaf)
    halves = (gradient * x).unflatten(1, (2, 3))
    assert_close(halves.sum((1, 2)), out.detach().sum(1))
    assert_close(halves[:, 0].sum(), halves[:, 1].sum())


@pytest.mark.parametrize(
    ("written_out", "plain"),
    [
        (lambda x: x * torch.sigmoid(x), F.silu),
        (lambda x: x.sigmoid() * x, F.silu),
        (lambda x: x * torch.sigmoid(1.0 * x), F.silu),
    ],
)
def test_an_activation_that_is_written_out_is_itself(written_out, plain):
    layer, x = nn.Linear(4, 3).double(), images(2, 4)
    expected = relevance(lambda v: plain(layer(v)), x, mode=AttentionRelevance)
    assert_close(relevance(lambda v: written_out(layer(v)), x, mode=AttentionRelevance), expected)


@pytest.mark.parametrize(
    "norm",
    [nn.LayerNorm(6), nn.RMSNorm(6), lambda x: F.normalize(x, dim=-1), nn.LayerNorm((2, 6))],
)
def test_a_norm_is_linear_with_a_constant_scale(norm):
    x = images(3, 2, 6)
    leaf = x.clone().requires_grad_()
    if isinstance(norm, nn.Module):
        norm.double()
        nn.init.uniform_(norm.weight, 0.5, 1.5)
    with AttentionRelevance(LRP_0, []):
        out = norm(leaf.clone())
    assert_close(out.detach(), norm(x).detach())
    (gradient,) = torch.autograd.grad(out[..., 0].sum(), leaf)
    assert_close((gradient * x).sum(), out[..., 0].sum().detach())


def test_products_the_mode_cannot_halve_are_errors():
    x = images(2, 6)

    def three(v):
        return torch.einsum("ni,ni,ni->ni", v, v, v)

    def part(v):
        y = v.clone()
        y[:, :3].mul_(v[:, 3:])
        return y

    for model, text in ((three, "more than two"), (part, "mul_ on a part")):
        with pytest.raises(ValueError, match=rf"AttnLRP has no rule for .*{text}"):
            relevance(model, x, mode=AttentionRelevance)
