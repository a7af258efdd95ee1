"""Explainers that run a model from a layer on, beside plain loops over the whole model."""

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

import camlens
from camlens.methods import cam
from camlens.probe import Probe, Site, Tail

from ..nets import flops

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Deep(nn.Module):
    """A layer with a nonlinear end behind it; ``extra`` is an input with a row for each image."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU())
        self.end = nn.Sequential(nn.Conv2d(6, 5, 3), nn.GELU(), nn.Flatten(), nn.Linear(125, 4))

    def forward(self, images, extra=None):
        scores = self.end(self.features(images))
        return scores if extra is None else scores * extra


def pooled():
    """Return a network of a layer "1" that only pooling and a linear layer follow."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        layers = nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        return nn.Sequential(*layers, nn.Linear(6, 4)).eval()


@pytest.fixture
def deep():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Deep().eval()


def whole_scores(model, layer, change, *inputs):
    """Return the scores of the whole model with a layer's output changed, by a plain hook."""
    module = model.get_submodule(layer)
    handle = module.register_forward_hook(lambda module, args, output: change(output.clone()))
    try:
        with torch.no_grad():
            return model(*inputs)
    finally:
        handle.remove()


def falls(model, layer, inputs, baseline, ablate):
    """Return (N, K, channels or cells): how far all scores fall, one forward pass for each."""
    kept = {}

    def keep(output):
        kept["output"] = output
        return output

    scores = whole_scores(model, layer, keep, *inputs)
    channels, cells = kept["output"].shape[1], kept["output"][0, 0].numel()
    found = []
    for place in range(channels if ablate == "channels" else cells):

        def change(output, place=place):
            flat = output.flatten(2)
            rest = flat.mean(dim=2, keepdim=True) if baseline == "mean" else flat[:, :, :1] * 0
            if ablate == "channels":
                flat[:, place] = rest[:, place].expand(-1, cells)
            else:
                flat[:, :, place] = rest[:, :, 0]
            return flat.view_as(output)

        found.append(scores - whole_scores(model, layer, change, *inputs))
    return torch.stack(found, dim=2), kept["output"], scores


@pytest.mark.parametrize("baseline", ["zero", "mean"])
@pytest.mark.parametrize("ablate", ["channels", "cells"])
@pytest.mark.parametrize("extra", [False, True])
def test_ablation_is_the_loop_over_the_whole_model(deep, baseline, ablate, extra):
    inputs = (IMAGES, torch.tensor([[1.0], [3.0]])) if extra else (IMAGES,)
    fall, activations, scores = falls(deep, "features", inputs, baseline, ablate)
    explainer = camlens.AblationCAM(deep, "features", ablate=ablate, baseline=baseline)
    found = explainer(*inputs, targets="all")
    if ablate == "cells":
        expected = fall.relu().unflatten(2, activations.shape[2:])
    else:
        weights = fall / scores.abs().unsqueeze(2)
        expected = torch.einsum("nkc,nchw->nkhw", weights, activations).relu()
    assert_close(found.raw, expected, rtol=1e-4, atol=1e-6)
    assert_close(found.scores, scores)


def test_a_linear_end_needs_no_further_pass():
    model = pooled()
    images = torch.rand(3, 3, 16, 16)
    for ablate in ("channels", "cells"):
        for baseline in ("zero", "mean"):
            fall, activations, scores = falls(model, "1", (images,), baseline, ablate)
            explainer = camlens.AblationCAM(model, "1", ablate=ablate, baseline=baseline)
            first = explainer(images, targets="all")  # measures the layer
            found = explainer(images, targets="all")
            assert flops(lambda e=explainer: e(images)) < 1.05 * flops(lambda: model(images))
            expected = (
                fall.relu().unflatten(2, activations.shape[2:])
                if ablate == "cells"
                else cam.ablation_cam(activations, fall, scores)
            )
            assert_close(found.raw, expected, rtol=1e-3, atol=1e-5)
            assert_close(first.raw, found.raw)


def test_pooling_and_linear_give_the_closed_form():
    """w_kc mean(A_c) is what the score loses without channel c."""
    model = pooled()
    images = torch.rand(2, 3, 16, 16)
    found = camlens.AblationCAM(model, "1")(images, targets="all")
    kept = {}
    scores = whole_scores(model, "1", lambda a: kept.update(a=a) or a, images)
    means = kept["a"].mean((2, 3))
    fall = model[4].weight * means.unsqueeze(1)
    expected = cam.ablation_cam(kept["a"], fall, scores)
    assert_close(found.raw, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_tokens_of_transformers_are_ablated_as_they_lie(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        options = {"img_size": 64, "depth": 12, "num_classes": 3}
        if name.startswith("swin"):
            options = {"img_size": 128, "depths": (1, 1, 1, 2), "embed_dim": 24, "num_classes": 3}
        model = timm.create_model(name, pretrained=False, **options).eval()
    layer = "blocks.10" if name.startswith("vit") else "layers.3.blocks.0"
    size = (options["img_size"],) * 2
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    found = camlens.AblationCAM(model, layer, ablate="cells")(images, targets=1)
    prefix = 1 if name.startswith("vit") else 0
    scores = model(images)[0, 1].item()
    assert found.grid == (4, 4)
    for cell in (0, 7, 15):

        def change(output, cell=cell):
            (output[:, prefix:] if prefix else output.flatten(1, 2))[:, cell] = 0
            return output

        fall = scores - whole_scores(model, layer, change, images)[0, 1].item()
        assert found.raw.flatten()[cell].item() == pytest.approx(max(fall, 0), abs=2e-5)


def test_evidence_that_passes_by_is_kept():
    """A residual branch: what the layer adds to has to be right, not of shapes alone."""

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 6, 3, padding=1)
            self.branch = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())
            self.head = nn.Sequential(
                nn.Flatten(), nn.Linear(6 * 64, 8), nn.ReLU(), nn.Linear(8, 3)
            )

        def forward(self, images):
            x = self.stem(images)
            return self.head(x + self.branch(x))

    torch.manual_seed(3)
    model, images = Residual().eval(), torch.rand(2, 3, 8, 8)
    fall, activations, scores = falls(model, "branch", (images,), "zero", "channels")
    found = camlens.AblationCAM(model, "branch")(images, targets="all")
    expected = cam.ablation_cam(activations, fall, scores)
    assert_close(found.raw, expected, rtol=1e-3, atol=1e-5)


class Looks(Deep):
    def forward(self, images):
        if images.mean().item() < 0:
            raise RuntimeError("negative images")
        return super().forward(images + (images.amax() < 0))


class Counts(Deep):
    def forward(self, images):
        count = len(images)
        return super().forward(images).view(count, 4)


@pytest.mark.parametrize(
    ("kind", "before"), [(Deep, "none"), (Counts, "shapes"), (Looks, "images")]
)
def test_what_comes_before_runs_on_as_little_as_the_model_bears(kind, before):
    torch.manual_seed(4)
    model = kind().eval()
    probe, site = Probe(model, IMAGES), Site("features")
    assert Tail(probe, site, probe.run(sites=[site])).before == before
    fall, activations, scores = falls(model, "features", (IMAGES,), "zero", "channels")
    found = camlens.AblationCAM(model, "features")(IMAGES, targets="all")
    assert_close(found.raw, cam.ablation_cam(activations, fall, scores), rtol=1e-3, atol=1e-5)


def test_a_model_of_single_images_runs_one_changed_activation_at_a_time():
    class Single(Deep):
        def forward(self, images):
            if len(images) != 1:
                raise RuntimeError("expected a single image")
            return super().forward(images)

    model, image = Single().eval(), IMAGES[:1]
    fall, activations, scores = falls(model, "features", (image,), "zero", "channels")
    found = camlens.AblationCAM(model, "features")(image, targets="all")
    assert_close(found.raw, cam.ablation_cam(activations, fall, scores), rtol=1e-3, atol=1e-5)


def test_layer_integrated_gradients_are_complete(deep):
    for baseline in ("zero", "mean"):
        explainer = camlens.LayerIntegratedGradients(deep, "features", steps=64, baseline=baseline)
        explainer(IMAGES, targets="all")
        activations = deep.features(IMAGES).detach()
        scores = deep.end(activations).detach()
        start = activations * 0
        if baseline == "mean":
            start = activations.mean((2, 3), keepdim=True).expand_as(activations)
        total = torch.zeros(2, 4, *activations.shape[1:])
        for step in range(64):
            point = (start + (activations - start) * (step + 0.5) / 64).requires_grad_()
            outputs = deep.end(point)
            for k in range(4):
                (g,) = torch.autograd.grad(outputs[:, k].sum(), point, retain_graph=True)
                total[:, k] += g / 64
        signed = ((activations - start).unsqueeze(1) * total).sum(2)
        change = scores - deep.end(start)
        assert_close(signed.sum((2, 3)), change.detach(), rtol=1e-2, atol=1e-3)
        found = explainer(IMAGES, targets="all")
        assert_close(found.raw, signed.relu().detach(), rtol=1e-3, atol=1e-5)
        gap = (signed.sum((2, 3)) - change).abs().detach()
        assert_close(found.measures["completeness_gap"], gap, rtol=1e-2, atol=1e-5)


def test_of_a_linear_end_integrated_gradients_are_hirescam():
    model = pooled()
    images = torch.rand(2, 3, 16, 16)
    path = camlens.LayerIntegratedGradients(model, "1", steps=3)(images, targets="all")
    plain = camlens.HiResCAM(model, "1")(images, targets="all")
    assert_close(path.raw, plain.raw, rtol=1e-4, atol=1e-6)


def test_eigen_grad_cam_is_the_first_direction_with_the_sign_of_the_evidence():
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        products = torch.rand(1, 1, 4, 3, 3, generator=generator) - 0.3
        made = cam.eigen_grad_cam(torch.ones(1, 4, 3, 3), products)
        matrix = products[0, 0].flatten(1).T
        left, singular, _ = torch.linalg.svd(matrix)
        first = left[:, 0] * singular[0]
        assert_close(made.flatten(), (first * (first @ matrix.sum(1)).sign()).relu())
        # Of the opposite score nothing is left but what spoke against this one.
        opposite = cam.eigen_grad_cam(torch.ones(1, 4, 3, 3), -products)
        assert (made * opposite).sum() == 0


def test_the_product_of_layers_is_what_all_agree_on(deep):
    both = camlens.GradCAMPlusPlus(deep, ["features", "end.0"], fuse="product")
    found = both(IMAGES, targets=1).raw
    parts = [camlens.GradCAMPlusPlus(deep, layer)(IMAGES, targets=1).raw for layer in both.layers]
    fine, coarse = (camlens.heatmap.scale(part) for part in parts)
    expected = fine * camlens.heatmap.resize(coarse, fine.shape[2:])
    assert_close(found, expected)
    with pytest.raises(ValueError, match=r"expected fuse .* got 'sum'"):
        camlens.GradCAM(deep, "features", fuse="sum")


@pytest.mark.slow
def test_the_part_before_the_layer_costs_nothing():
    model = torchvision.models.mobilenet_v3_small(weights=None, num_classes=10).eval()
    images = torch.rand(1, 3, 64, 64)
    explainer = camlens.AblationCAM(model, "features")
    explainer(images)
    forward = flops(lambda: model(images))
    end = flops(lambda: model.classifier(torch.rand(576, 576)))
    # One whole pass, and the end of 576 channels.
    assert flops(lambda: explainer(images)) < forward + 1.05 * end


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"ablate": "pixels"}, 'expected ablate "channels" or "cells", got'),
        ({"baseline": "black"}, 'expected baseline "zero" or "mean", got'),
        ({"create_graph": True}, "does not support create_graph=True"),
    ],
)
def test_wrong_options(deep, options, match):
    with pytest.raises(ValueError, match=match):
        camlens.AblationCAM(deep, "features", **options)
    with pytest.raises(ValueError, match="steps as an integer"):
        camlens.LayerIntegratedGradients(deep, "features", steps=0)


@pytest.mark.parametrize("explainer", [camlens.AblationCAM, camlens.LayerIntegratedGradients])
def test_a_batch_is_its_images_and_all_targets_are_each(deep, explainer):
    made = explainer(deep, "features")
    whole = made(IMAGES, targets="all")
    for n in range(2):
        alone = made(IMAGES[n : n + 1], targets=[[2, 0]])
        assert_close(alone.raw[0], whole.raw[n, [2, 0]], rtol=1e-4, atol=1e-6)
    state = {name: value.clone() for name, value in deep.state_dict().items()}
    with torch.no_grad():
        again = made(IMAGES, targets="all")
    assert_close(again.raw, whole.raw)
    assert all(torch.equal(value, deep.state_dict()[name]) for name, value in state.items())
    assert not any(module._forward_hooks for module in deep.modules())


class Inverse(nn.Module):
    """A linear layer, by which constants are divided."""

    def __init__(self):
        super().__init__()
        self.linear, self.constants = nn.Linear(6, 4), nn.Parameter(torch.ones(4))

    def forward(self, maps):
        return self.constants / (self.linear(maps.mean((2, 3))) - 10)


class Picked(nn.Module):
    """The channels at the cell with the largest sum: indices that depend on the values."""

    def __init__(self, gather):
        super().__init__()
        self.linear, self.gather = nn.Linear(6, 4), gather

    def forward(self, maps):
        cells = maps.flatten(2)
        where = cells.sum(dim=1).argmax(dim=1)
        if self.gather:
            picked = cells.gather(2, where.view(-1, 1, 1).expand(-1, 6, 1)).squeeze(2)
        else:
            picked = cells[torch.arange(len(cells)), :, where]
        return self.linear(picked)


@pytest.mark.parametrize("end", [Inverse(), Picked(True), Picked(False)], ids=["1/x", "g", "i"])
@pytest.mark.parametrize("ablate", ["channels", "cells"])
def test_an_end_that_only_looks_linear_is_run(end, ablate):
    model = nn.Sequential(*pooled()[:2], end).eval()
    fall, activations, scores = falls(model, "1", (IMAGES,), "zero", ablate)
    found = camlens.AblationCAM(model, "1", ablate=ablate)(IMAGES, targets="all")
    expected = (
        fall.relu().unflatten(2, activations.shape[2:])
        if ablate == "cells"
        else cam.ablation_cam(activations, fall, scores)
    )
    assert_close(found.raw, expected, rtol=1e-4, atol=1e-6)


class Largest(TorchDispatchMode):
    """Keep the number of values of the largest tensor that is made."""

    def __init__(self):
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.values = max(self.values, result.numel())
        return result


def test_the_gradients_of_many_classes_at_many_steps_are_not_held_at_once(monkeypatch):
    monkeypatch.setattr("camlens.probe.passes.CHUNK_BYTES", 2**14)
    layers = nn.Conv2d(3, 6, 3), nn.GELU(), nn.Conv2d(6, 5, 3), nn.GELU(), nn.Flatten()
    model = nn.Sequential(*layers, nn.Linear(5 * 144, 40)).eval()
    explain = camlens.LayerIntegratedGradients(model, "1", steps=20)
    explain(IMAGES)  # measures the layer
    with Largest() as largest:
        explanation = explain(IMAGES, targets="all")
    assert largest.values <= 2 * 40 * 6 * 14 * 14  # the mean of the gradients itself
    alone = explain(IMAGES, targets=[[39, 3]])
    assert_close(explanation.raw[:, [39, 3]], alone.raw, rtol=1e-3, atol=1e-6)
