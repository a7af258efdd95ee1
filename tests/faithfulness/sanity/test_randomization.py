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

from ...html_tables import Table
from ...nets import small_vit
from .. import metrics


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
    every = [tensor for module in model.modules() for _, tensor in learned(module)]
    tensors = list({id(tensor): tensor for tensor in every}.values())
    for name in names:
        own, source = other.get_submodule(name), model.get_submodule(name)
        for key, tensor in learned(source):
            first = learned(source)[0][1] if isinstance(source, nn.BatchNorm2d) else tensor
            number = next(i for i, t in enumerate(tensors) if t is first)
            draw = torch.Generator().manual_seed(seed * 1_000_003 + number)
            order = torch.randperm(tensor.numel(), generator=draw)
            getattr(own, key).data = tensor.data.flatten()[order].view(tensor.shape)
    return other


def learned(module):
    found = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return [(name, tensor) for name, tensor in found if tensor.is_floating_point()]


#: By the last time each was entered; what is not called goes with what is around it.
CASCADE = ["head.3", "head.1", "shared", "norm", "first", "unused", ""]

MAKERS = [lambda m: camlens.LayerCAM(m, "norm"), camlens.Saliency]


@pytest.mark.parametrize("make", MAKERS)
def test_each_step_is_the_explanation_of_a_copy(model, make):
    images = metrics.images(2)
    found = randomization(model, images, make(model), steps=None, seed=3, targets=[[1, 2]])
    before = make(model)(images, targets=[[1, 2]])
    assert found.steps.tolist() == pytest.approx([(i + 1) / 7 for i in range(7)])
    assert found.step_names == tuple((name,) for name in CASCADE)
    for step in range(7):
        other = shuffled(model, CASCADE[: step + 1], seed=3)
        expected = spearman(before.raw, make(other)(images, targets=[[1, 2]]).raw)
        assert expected.isfinite().all()
        torch.testing.assert_close(found.curve[..., step], expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(found.values, found.curve[..., -1])
    assert (found.values < 0.9).all()


def test_steps_divide_the_cascade(model):
    explainer = camlens.LayerCAM(model, "norm")
    whole = randomization(model, metrics.images(), explainer, steps=None)
    parts = randomization(model, metrics.images(), explainer, steps=2)
    torch.testing.assert_close(parts.curve, whole.curve[..., [3, 6]])
    assert parts.step_names == (tuple(CASCADE[:4]), tuple(CASCADE[4:]))


def test_a_notebook_shows_the_similarity_after_each_step(model):
    found = randomization(model, metrics.images(2), camlens.LayerCAM(model, "norm"), steps=2)
    table = Table(found._repr_html_())
    first, last = found.curve.mean(dim=(0, 1)).tolist()
    assert table.rows[1] == ["57% of the modules shuffled", f"{first:.2f}"]  # 4 of 7
    assert table.rows[2] == ["100% of the modules shuffled", f"{last:.2f}"]
    centre = found.unrelated["centre"].mean().item()
    assert ["unrelated map: centre", f"{centre:.2f}"] in table.rows[3:]


def test_above_the_layer_the_part_before_it_does_not_run(model):
    rows = []
    model.first.register_forward_hook(lambda _, __, out: rows.append(len(out)))
    explainer = camlens.LayerCAM(model, "norm")
    explainer(metrics.images(2))  # measures the layer

    def passes(**options):
        rows.clear()
        randomization(model, metrics.images(2), explainer, floors=(), **options)
        return sum(rows) / 2

    # One explanation, one pass for the order, two that measure; then four of the seven steps.
    assert passes(steps=None) == 4 + 4
    assert passes(steps=2) == 2 + 2  # no step lies after the layer


def test_a_batch_is_its_single_images(model):
    images, explainer = metrics.images(), camlens.LayerCAM(model, "norm")
    together = randomization(model, images, explainer, steps=3, targets="all")
    assert together.values.isfinite().any()
    for n in range(3):
        alone = randomization(model, images[n : n + 1], explainer, steps=3, targets="all")
        torch.testing.assert_close(
            alone.curve[0], together.curve[n], atol=1e-4, rtol=1e-4, equal_nan=True
        )
    for k in range(4):
        alone = randomization(model, images, explainer, steps=3, targets=k)
        torch.testing.assert_close(
            alone.curve[:, 0], together.curve[:, k], atol=1e-4, rtol=1e-4, equal_nan=True
        )


class Across(nn.Module):
    """Behind the layer ``norm`` run modules whose parameters are used before it, too."""

    def __init__(self, how) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.mixes, self.other = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.last = nn.Conv2d(4, 4, 3)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(400, 8), nn.ReLU(), nn.Linear(8, 3))
        self.how = how
        if how == "tied":
            self.mixes.weight = self.other.weight

    def forward(self, images):
        x = self.first(images)
        if self.how == "called twice":
            x = self.mixes(x)
        elif self.how == "weights alone":
            x = nn.functional.conv2d(x, self.mixes.weight)
        else:
            x = self.other(x)
        return self.head(self.last(self.mixes(self.norm(x)).relu()))


@pytest.mark.parametrize("how", ["called twice", "weights alone", "tied"])
def test_parameters_that_are_used_before_the_layer_too(how):
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(2)
        model = Across(how).eval()
    images = metrics.images(2)
    found = randomization(model, images, camlens.LayerCAM(model, "norm"), steps=None, targets=1)
    before = camlens.LayerCAM(model, "norm")(images, targets=1).raw
    assert found.step_names[:4] == (("head.3",), ("head.1",), ("last",), ("mixes",))
    other = shuffled(model, ["head.3", "head.1", "last", "mixes"])  # deepcopy keeps ties
    expected = spearman(before, camlens.LayerCAM(other, "norm")(images, targets=1).raw)
    torch.testing.assert_close(found.curve[..., 3], expected, atol=1e-4, rtol=1e-4)


def test_a_position_embedding_follows_the_blocks_that_it_is_fed_to():
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = small_vit()
    layer = "encoder.layers.encoder_layer_0"
    explainer = camlens.LayerCAM(model, layer)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    found = randomization(model, images, explainer, steps=None, targets=1)
    order = [name for (name,) in found.step_names]
    assert order[:2] == ["heads.head", "encoder.ln"]
    assert order[-3:] == ["encoder", "conv_proj", ""]  # class token: the model's own
    attention = "encoder.layers.encoder_layer_1.self_attention"
    assert order.index(attention) == order.index(f"{attention}.out_proj") + 1
    step = order.index("encoder.layers.encoder_layer_1.ln_1")
    other = shuffled(model, order[: step + 1])
    before = explainer(images, targets=1).raw
    expected = spearman(before, camlens.LayerCAM(other, layer)(images, targets=1).raw)
    torch.testing.assert_close(found.curve[..., step], expected, atol=1e-4, rtol=1e-4)


def test_channels_of_a_batch_norm_stay_together():
    layers = [nn.Conv2d(3, 16, 3, padding=1)]
    for _ in range(30):
        norm = nn.BatchNorm2d(16)
        norm.running_var[:4], norm.weight.data[:4] = 1e-12, 1e-7  # channels that died in training
        layers += [norm, nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3)).eval()
    # Apart, living channels are divided by dead ones' deviations, and the scores overflow.
    found = randomization(model, metrics.images(1), camlens.Saliency(model), steps=3)
    assert found.curve.isfinite().all()


def test_what_was_not_learned_stays(model):
    model.register_buffer("mean_colour", torch.tensor([0.1, 0.2, 0.3]))
    seen = []

    class Looks(camlens.Explainer):
        def attribute(self, probe):
            seen.append((probe.model.mean_colour, probe.model.norm.running_mean))
            return camlens.Attribution(raw=probe.images[:, :1].abs())

    randomization(model, metrics.images(1), Looks(model), steps=1)
    assert seen[-1][0] is model.mean_colour
    assert not torch.equal(seen[-1][1], model.norm.running_mean)


class Scale(nn.Module):
    def __init__(self, values) -> None:
        super().__init__()
        self.values = nn.Parameter(values)

    def forward(self, x):
        return x * self.values


def test_scores_that_overflow_are_an_error_that_names_the_step():
    up = torch.tensor([1e30, 1e-30] * 8)
    model = nn.Sequential(
        *(nn.Conv2d(3, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        *(Scale(up), Scale(1 / up), nn.Linear(16, 3)),
    ).eval()
    with pytest.raises(ValueError, match=r"from '5' to '4' shuffled \(step 2 of 4\).*not finite"):
        randomization(model, metrics.images(), camlens.Saliency(model), steps=None, targets=0)


def test_recurrent_layers_are_refused():
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(36, 4, batch_first=True)

        def forward(self, images):
            return self.lstm(images.flatten(2).mT.reshape(len(images), -1, 36))[0][:, -1]

    model = Recurrent().eval()
    with pytest.raises(ValueError, match="recurrent layers"):
        randomization(model, metrics.images(), camlens.Saliency(model))


def test_the_mode_around_the_call_makes_no_difference(model):
    images = metrics.images(2)
    expected = randomization(model, images, camlens.LayerCAM(model, "norm"), steps=None).curve
    with torch.inference_mode():
        explainer = camlens.LayerCAM(model, "norm")
        found = randomization(model, images.clone(), explainer, steps=None)
    assert torch.equal(found.curve, expected)
    explainer = camlens.LayerCAM(model, "norm", create_graph=True)
    found = randomization(model, images, explainer, steps=None)
    assert not found.curve.requires_grad
    torch.testing.assert_close(found.curve, expected, atol=1e-4, rtol=1e-4)


def test_signed_maps_are_compared_with_their_signs(model):
    images, explainer = metrics.images(2), camlens.Saliency(model)
    found = randomization(model, images, explainer, steps=1, signed=True)
    before = explainer(images)
    after = camlens.Saliency(shuffled(model, CASCADE))(images, targets=before.targets)
    for n in range(2):
        one, other = (e.gradients[n, 0].sum(dim=0).flatten() for e in (before, after))
        expected = spearmanr(one, other).statistic
        assert found.values[n, 0].item() == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ValueError, match="signed gradients"):
        randomization(model, images, camlens.GradCAM(model, "norm"), signed=True)
    with pytest.raises(ValueError, match="spearman"):
        randomization(model, images, explainer, signed=True, similarity="ssim")


def test_what_an_unrelated_map_scores(model):
    explainer = camlens.LayerCAM(model, "pool")  # of 2 x 2 cells
    found = randomization(model, metrics.images(), explainer, steps=1)
    raw = explainer(metrics.images()).raw
    floor = camlens.faithfulness.FLOORS["edges"](metrics.images(), torch.arange(3))
    cells = floor[:, 0].reshape(3, 2, 6, 2, 6).mean(dim=(2, 4))
    for n in range(3):
        expected = spearmanr(raw[n, 0].flatten(), cells[n].flatten()).statistic
        assert found.unrelated["edges"][n, 0].item() == pytest.approx(expected, abs=1e-5)
    assert found.floors["edges"].mean == 1


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


def test_random_logit_leaves_out_pairs_that_say_nothing():
    maps = metrics.maps(1, 4)
    maps[0, 2] = 0
    found = random_logit(None, metrics.images(1), maps, floors=())
    assert found.values[0, 2].isnan()
    assert found.curve[0, 2].isnan().all()
    kept = random_logit(None, metrics.images(1), maps[:, [0, 1, 3]], floors=()).values
    torch.testing.assert_close(found.values[:, [0, 1, 3]], kept)
    most = random_logit(None, metrics.images(1), maps, pairs="max", floors=()).values
    pairs = found.curve[0].clone().fill_diagonal_(-2)
    assert most[0, 2].isnan()
    for k in (0, 1, 3):
        assert most[0, k] == max(pairs[k][pairs[k].isfinite()].tolist())
    nothing = random_logit(None, metrics.images(1), torch.ones(1, 2, 12, 12), pairs="max")
    assert nothing.values.isnan().all()
    with pytest.raises(ValueError, match="median"):
        random_logit(None, metrics.images(1), maps, pairs="median")


def test_random_logit_leaves_out_pairs_of_one_class(model):
    targets = torch.tensor([[0, 1, 0], [2, 1, 3], [3, 3, 3]])
    explanation = camlens.LayerCAM(model, "norm")(metrics.images(), targets=targets)
    found = random_logit(None, metrics.images(), explanation)
    torch.testing.assert_close(found.values[0, 0], found.curve[0, 0, 1])
    assert found.curve[0, 0, 2].isnan()
    assert found.curve[1].isfinite().all()
    assert found.values[2].isnan().all()


def test_random_logit_by_structural_similarity(model):
    explanation = camlens.LayerCAM(model, "norm")(metrics.images(), targets=[[0, 3]])
    found = random_logit(None, metrics.images(), explanation, similarity="ssim")
    heat = explanation.heatmaps
    expected = ssim(heat[:, :1], heat[:, 1:])
    torch.testing.assert_close(found.values, expected.expand(-1, 2))


def test_what_all_classes_share_drops_out_of_differences():
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = metrics.convolutional()
    with torch.no_grad():
        model[4].weight += 5  # evidence for all classes alike
    images, explainer = metrics.images(), camlens.HiResCAM(model, "1")

    def alike(targets):
        return random_logit(None, images, explainer(images, targets=targets)).mean

    assert alike("all") > 0.95
    assert alike(lambda out: out - out.mean(dim=1, keepdim=True)) < 0.3


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


@pytest.mark.parametrize("compare", [spearman, ssim])
@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (torch.rand(1, 1, 9, 9), torch.rand(1, 1, 8, 8), "of one shape"),
        (torch.rand(2, 3, 9, 9), torch.rand(2, 1, 9, 9), "of one shape"),
        (torch.rand(9, 9), torch.rand(9, 9), "of one shape"),
        (torch.rand(1, 1, 9, 9), torch.full((1, 1, 9, 9), torch.nan), "finite"),
    ],
)
def test_maps_that_cannot_be_compared(compare, one, other, words):
    with pytest.raises(ValueError, match=words):
        compare(one, other)
