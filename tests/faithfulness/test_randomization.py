"""Randomization: the model is left alone, the tail says what the whole does, and the measures."""

import copy

import pytest
import timm
import torch
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from torch import nn

import camlens
from camlens.faithfulness import random_logit, randomization, spearman, ssim

from . import metrics


class Residual(nn.Module):
    """A network with a parameter of its own, a BatchNorm, a shared layer and an unused one."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 8).view(8, 1, 1))
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.shared = nn.Conv2d(8, 8, 3, padding=1)
        self.unused = nn.Linear(3, 3)
        self.features = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, images):
        x = self.norm(self.first(images)) * self.scale
        x = self.shared(self.shared(x).relu())
        return self.head(self.pool(self.features(x)))


@pytest.fixture
def model():
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        made = Residual()
        made.norm.running_mean.normal_()
        made.norm.running_var.uniform_(0.5, 2)
        return made.eval()


def shuffled(model, names, seed=0):
    """Return a copy of the model with the tensors of some modules in another order."""
    other = copy.deepcopy(model)
    tensors = [*model.parameters(), *model.buffers()]
    for name in names:
        own, source = other.get_submodule(name), model.get_submodule(name)
        for key, tensor in (
            *source.named_parameters(recurse=False),
            *source.named_buffers(recurse=False),
        ):
            if tensor.is_floating_point():
                number = next(i for i, t in enumerate(tensors) if t is tensor)
                draw = torch.Generator().manual_seed(seed * 1_000_003 + number)
                order = torch.randperm(tensor.numel(), generator=draw)
                getattr(own, key).data = tensor.data.flatten()[order].view(tensor.shape)
    return other


CASCADE = ["head.3", "head.1", "shared", "norm", "first", "unused"]


@pytest.mark.parametrize("make", [lambda m: camlens.GradCAM(m, "features"), camlens.Saliency])
def test_each_step_is_the_explanation_of_a_copy(model, make):
    images = metrics.images(2)
    found = randomization(model, images, make(model), steps=None, seed=3, targets=1)
    before = make(model)(images, targets=1)
    assert found.steps.tolist() == pytest.approx([(i + 1) / 6 for i in range(6)])
    for step in range(6):
        names = CASCADE[: step + 1] + [""] * (step == 5)
        other = shuffled(model, names, seed=3)
        expected = spearman(before.raw, make(other)(images, targets=1).raw)
        torch.testing.assert_close(found.curve[..., step], expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(found.values, found.curve[..., -1])


def test_steps_divide_the_cascade(model):
    explainer = camlens.GradCAM(model, "features")
    whole = randomization(model, metrics.images(), explainer, steps=None)
    halves = randomization(model, metrics.images(), explainer, steps=2)
    torch.testing.assert_close(halves.curve, whole.curve[..., [2, 5]])


def test_above_the_layer_the_part_before_it_does_not_run(model):
    ran = []
    model.first.register_forward_hook(lambda *_: ran.append(1))
    explainer = camlens.GradCAM(model, "features")
    explainer(metrics.images(2))
    ran.clear()
    randomization(model, metrics.images(2), explainer, steps=None)
    whole = len(ran)
    ran.clear()
    randomization(model, metrics.images(2), camlens.GuidedBackprop(model), steps=None)
    # Six steps; the two of the head cost a class activation map no pass of the first layer.
    assert len(ran) - whole <= 6
    assert whole >= 4


def test_the_model_is_bit_identical_and_its_tensors_are_the_same_objects(model):
    kept = {
        name: (id(t), t.clone()) for name, t in [*model.named_parameters(), *model.named_buffers()]
    }
    randomization(model, metrics.images(), camlens.Saliency(model))
    now = dict([*model.named_parameters(), *model.named_buffers()])
    assert all(id(now[n]) == i and torch.equal(now[n], t) for n, (i, t) in kept.items())

    class Failing(camlens.Explainer):
        calls = 0

        def attribute(self, probe):
            self.calls += 1
            if self.calls > 2:
                raise KeyboardInterrupt
            return camlens.Attribution(raw=probe.images[:, :1].abs())

    with pytest.raises(KeyboardInterrupt):
        randomization(model, metrics.images(), Failing(model), steps=None)
    now = dict([*model.named_parameters(), *model.named_buffers()])
    assert all(id(now[n]) == i and torch.equal(now[n], t) for n, (i, t) in kept.items())


def test_a_map_of_the_image_alone_stays_the_same(model):
    class OfTheImage(camlens.Explainer):
        def attribute(self, probe):
            return camlens.Attribution(raw=probe.images.abs().sum(dim=1, keepdim=True))

    found = randomization(model, metrics.images(), OfTheImage(model))
    torch.testing.assert_close(found.curve, torch.ones_like(found.curve))
    assert not found.above_floor.clear


def test_class_tokens_and_embeddings_are_shuffled_too():
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = timm.models.VisionTransformer(
            32, 8, num_classes=3, embed_dim=24, depth=2, num_heads=2, init_values=0.5
        ).eval()
    seen = {}

    class Looks(camlens.Explainer):
        def attribute(self, probe):
            seen.update({name: getattr(probe.model, name) for name in ("cls_token", "pos_embed")})
            return camlens.Attribution(raw=probe.images[:, :1].abs())

    randomization(model, torch.randn(1, 3, 32, 32), Looks(model), steps=1)
    for name in ("cls_token", "pos_embed"):
        own = getattr(model, name)
        assert not torch.equal(seen[name], own)
        assert torch.equal(seen[name].flatten().sort().values, own.flatten().sort().values)


def test_spearman_is_scipys():
    one, other = metrics.maps(3, 2).round(decimals=1), metrics.maps(3, 2).flip(2)
    found = spearman(one, other)
    for n in range(3):
        for k in range(2):
            expected = spearmanr(one[n, k].flatten(), other[n, k].flatten()).statistic
            assert found[n, k].item() == pytest.approx(expected, abs=1e-6)
    assert spearman(torch.ones(1, 1, 4, 4), metrics.maps(1, 1, 4)).isnan().all()


def test_ssim_is_that_of_scikit_image():
    one, other = metrics.maps(2), metrics.maps(2).flip(3)
    for n in range(2):
        x, y = (m[n, 0] / m[n, 0].max() for m in (one, other))
        expected = structural_similarity(x.double().numpy(), y.double().numpy(), data_range=1.0)
        assert ssim(one, other)[n, 0].item() == pytest.approx(expected, abs=1e-5)
    assert ssim(torch.zeros(1, 1, 9, 9), metrics.maps(1, 1, 9)).isnan().all()
    with pytest.raises(ValueError, match="spearman"):
        ssim(torch.rand(1, 1, 5, 9), torch.rand(1, 1, 5, 9))


def test_random_logit_is_the_mean_over_pairs(model):
    explanation = camlens.GradCAM(model, "features")(metrics.images(), targets="all")
    found = random_logit(None, metrics.images(), explanation)
    for n in range(3):
        for k in range(4):
            others = [
                spearmanr(
                    explanation.raw[n, k].flatten(), explanation.raw[n, j].flatten()
                ).statistic
                for j in range(4)
                if j != k
            ]
            assert found.values[n, k].item() == pytest.approx(sum(others) / 3, abs=1e-5)
    assert found.curve.diagonal(dim1=1, dim2=2).sub(1).abs().max() < 1e-6


def test_one_class_is_an_error_that_says_what_to_do(model):
    with pytest.raises(ValueError, match='targets="all"'):
        random_logit(None, metrics.images(), camlens.Saliency(model)(metrics.images()))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"similarity": "cosine"}, ValueError, "cosine"),
        ({"steps": 0}, ValueError, "steps"),
        ({"explainer": torch.rand(3, 1, 12, 12)}, TypeError, "Tensor"),
    ],
)
def test_bad_input(model, options, error, words):
    given = {"explainer": camlens.Saliency(model), **options}
    with pytest.raises(error, match=words):
        randomization(model, metrics.images(), given.pop("explainer"), **given)


def test_a_model_without_parameters():
    class Plain(nn.Module):
        def forward(self, images):
            return images.flatten(1)[:, :3]

    plain = Plain().eval()
    with pytest.raises(ValueError, match="no parameters"):
        randomization(plain, metrics.images(), camlens.Saliency(plain))
