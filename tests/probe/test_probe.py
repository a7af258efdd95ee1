"""The probe: right values from one pass, and many passes on changed images in a few lines."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

import camlens
from camlens import layouts, targets
from camlens.intercept import BackwardRule
from camlens.methods import gradient as rules
from camlens.probe import Probe, Site, passes

from ..nets import Convolutions, Small, plain_gradients


@pytest.fixture
def images():
    return torch.rand(3, 3, 8, 8)


@pytest.mark.parametrize("names", [["norm1"], ["norm1", "conv2"], ["conv2", "conv1", "norm2"]])
@pytest.mark.parametrize("start", ["sites", "images", "parameters"])
@pytest.mark.parametrize("n", [1, 3])
def test_gradients_are_those_of_plain_autograd(names, start, n):
    model, images = Small().eval(), torch.rand(n, 3, 8, 10)
    run = Probe(model, images, targets="all").run(sites=[Site(name) for name in names], start=start)
    assert [site.name for site in run.sites] == names
    for name, found in zip(names, run.gradients(keep_graph=True), strict=True):
        output, expected = plain_gradients(model, getattr(model, name), images)
        assert_close(run.captured[name].detach(), output)
        assert_close(found, expected)
    for k in range(5):
        part = run.gradients(slice(k, k + 1), keep_graph=True)
        whole = run.gradients(keep_graph=True)
        for single, every in zip(part, whole, strict=True):
            assert_close(single, every[:, k : k + 1])


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("layout", [None, layouts.nchw, layouts.nhwc])
def test_activations_and_gradients_are_read_by_the_layout(axes, layout):
    model = Convolutions(axes).eval()
    images = torch.rand(2, 2, *([8] * axes))
    run = Probe(model, images, targets="all").run(sites=[Site("last", layout)])
    output, expected = plain_gradients(model, model.last, images)
    read = layout or layouts.nchw
    assert_close(run.activations()[0].detach(), read(output))
    by_class = torch.stack([read(expected[:, k]) for k in range(3)], dim=1)
    assert_close(run.gradients()[0], by_class)


def test_tokens_are_read_by_the_layout():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.block, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.head((self.block(x) ** 2).mean(1))

    model, x = Tokens().eval(), torch.rand(2, 8, 4)
    run = Probe(model, x, targets="all").run(sites=[Site("block", layouts.tokens(2, (2, 3)))])
    output, expected = plain_gradients(model, model.block, x)
    assert_close(run.activations()[0].detach(), output[:, 2:].mT.reshape(2, 4, 2, 3))
    assert_close(run.gradients()[0], expected[:, :, 2:].mT.reshape(2, 3, 4, 2, 3))


def test_image_gradients_are_those_of_plain_autograd(images):
    model = Small().eval()
    run = Probe(model, images, targets="all").run(start="images")
    leaf = images.clone().requires_grad_()
    scores = model(leaf)
    for k in range(5):
        expected = torch.autograd.grad(scores[:, k].sum(), leaf, retain_graph=True)[0]
        assert_close(run.image_gradients(keep_graph=True)[:, k], expected)
        assert_close(run.image_gradients(slice(k, k + 1), keep_graph=True)[:, 0], expected)


def test_image_gradients_need_a_pass_that_starts_there(images):
    run = Probe(Small().eval(), images).run(sites=[Site("conv2")])
    with pytest.raises(ValueError, match='need a pass traced with start="images"'):
        run.image_gradients()


def test_one_pass_serves_several_rules(images):
    model = Small().eval()
    traced = Probe(model, images, targets=1).run(
        start="images", mode=BackwardRule(rules.plain_rule)
    )
    for rule, explainer in (
        (rules.guided_rule, camlens.GuidedBackprop),
        (rules.deconvnet_rule, camlens.Deconvnet),
        (rules.plain_rule, camlens.Saliency),
    ):
        expected = explainer(model)(images, targets=1).gradients
        assert_close(traced.image_gradients(rule=rule, keep_graph=True), expected)


def test_the_passes_outputs_and_selection(images):
    model = Small().eval()
    run = Probe(model, images, targets=[[0, 3]]).run(start=None)
    with torch.no_grad():
        logits = model(images)
    assert_close(run.outputs, logits)
    assert_close(run.scores, logits[:, [0, 3]])
    assert run.selection.classes.tolist() == [[0, 3]] * 3
    assert not run.scores.requires_grad


# Memory: K targets go in chunks, whatever their number.


class Largest(TorchDispatchMode):
    """Remember the size in bytes of the largest tensor made."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor) and tensor._base is None:
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return out


def classifier(classes):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, classes),
    ).eval()


@pytest.mark.slow
@pytest.mark.parametrize("classes", [50, 400])
@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("which", ["all", "top", "listed"])
@pytest.mark.parametrize("explainer", [camlens.GradCAM, camlens.GuidedGradCAM, camlens.Saliency])
def test_no_tensor_exceeds_a_chunk(classes, n, which, explainer, monkeypatch):
    """Also of few classes out of many, where each gradient first has all classes."""
    model, images = classifier(classes), torch.rand(n, 3, 4, 4)
    explain = explainer(model) if explainer is camlens.Saliency else explainer(model, "1")
    chosen = {
        "all": "all",
        "top": targets.top(classes // 5),
        "listed": [list(range(0, classes, 5))],
    }[which]
    expected = explain(images, targets=chosen)
    monkeypatch.setattr(passes, "CHUNK_BYTES", 2**15)
    with Largest() as largest:
        explanation = explain(images, targets=chosen)
    assert_close(explanation.raw, expected.raw)
    gradients = explanation.raw if explanation.gradients is None else explanation.gradients
    assert largest.bytes <= max(2 * passes.CHUNK_BYTES, gradients.nbytes)


MEMORY = """
import resource, sys
import torch
sys.path.insert(0, sys.argv[1])
from tests.probe.test_probe import classifier
import camlens
torch.set_num_threads(1)
model, images = classifier(24_000), torch.rand(1, 3, 8, 8)
camlens.GradCAM(model, "1")(images)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
maps = camlens.GradCAM(model, "1")(images, targets="all").raw
print(maps.shape[1], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.exhaustive
def test_the_memory_of_all_of_24000_classes():
    command = [sys.executable, "-c", MEMORY, str(Path(__file__).parents[1])]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    classes, kilobytes = map(int, run.stdout.split())
    assert classes == 24_000
    assert kilobytes < 400_000  # K x K float32 were 2.3 GB


# Explainers of one's own, with many passes.


class Occlusion(camlens.Explainer):
    """The drop of a score when a patch of the image is replaced by a baseline value."""

    def __init__(self, model, *, patch, baseline=0.0, batch_size=64):
        super().__init__(model)
        self.patch, self.baseline, self.batch_size = patch, baseline, batch_size

    def attribute(self, probe):
        n, (rows, columns) = len(probe.images), (side // self.patch for side in probe.size)
        source = torch.arange(n).repeat_interleave(rows * columns)
        cell = torch.eye(rows * columns).view(-1, 1, rows, columns).repeat(n, 1, 1, 1)

        def occluded(part):
            mask = cell[part].repeat_interleave(self.patch, -1).repeat_interleave(self.patch, -2)
            return probe.images[source[part]].lerp(torch.tensor(self.baseline), mask)

        scores = probe.scores(occluded, source, batch_size=self.batch_size)
        drops = probe.unchanged().scores[:, None] - scores.view(n, rows * columns, -1)
        return camlens.Attribution(raw=drops.mT.reshape(n, -1, rows, columns).relu())


class Affine(nn.Module):
    """Scores that are linear in the image, and an offset and a scale for each image."""

    def __init__(self, size, classes=4):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, 3, *size))

    def forward(self, images, offset=0.0, *, scale=None):
        scores = torch.einsum("nchw,kchw->nk", images, self.weight) + offset
        return scores if scale is None else scores * scale


def closed_form(model, images, patch, baseline):
    """(N, classes, *grid): the sum of w * (x - b) over each patch."""
    product = model.weight.detach() * (images - baseline)[:, None]
    summed = product.sum(2).unfold(-2, patch, patch).unfold(-2, patch, patch).sum((-2, -1))
    return summed.relu()


@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("baseline", [0.0, 0.5])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_occlusion_of_a_linear_model_in_closed_form(patch, baseline, n, batch_size):
    model, images = Affine((4, 8)).eval(), torch.rand(n, 3, 4, 8)
    explain = Occlusion(model, patch=patch, baseline=baseline, batch_size=batch_size)
    explanation = explain(images, targets="all")
    expected = closed_form(model, images, patch, baseline)
    assert_close(explanation.raw, expected, rtol=1e-4, atol=1e-4)
    assert explanation.grid == (4 // patch, 8 // patch)
    assert explanation.method == "Occlusion"
    with torch.no_grad():
        assert_close(explanation.outputs, model(images))
    assert_close(explanation.scores, explanation.outputs)


@pytest.mark.parametrize("chosen", [None, targets.top(2), 1, [[0, 2]]])
def test_targets_are_fixed_on_the_unchanged_images(chosen):
    """Without the patch that makes its class, an image is of another class."""
    model = Affine((4, 4), classes=3).eval()
    images = torch.rand(5, 3, 4, 4)
    explanation = Occlusion(model, patch=2)(images, targets=chosen)
    every = closed_form(model, images, 2, 0.0)
    with torch.no_grad():
        expected = targets.select(model(images), chosen)
    assert explanation.targets.tolist() == expected.classes.tolist()
    assert_close(explanation.scores, expected.scores)
    index = expected.classes[:, :, None, None].expand(-1, -1, 2, 2)
    assert_close(explanation.raw, every.gather(1, index), rtol=1e-4, atol=1e-4)


def test_a_callable_scores_changed_images_as_well():
    model, images = Affine((4, 4)).eval(), torch.rand(2, 3, 4, 4)
    explanation = Occlusion(model, patch=2)(images, targets=lambda out: out[:, 1] - out[:, 0])
    relative = Affine((4, 4)).eval()
    with torch.no_grad():
        relative.weight[:] = model.weight[1] - model.weight[0]
    assert_close(
        explanation.raw, closed_form(relative, images, 2, 0.0)[:, :1], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_further_inputs_follow_their_image(batch_size):
    model, images = Affine((4, 4)).eval(), torch.rand(3, 3, 4, 4)
    offset, scale = torch.randn(3, 1), torch.tensor([[1.0], [10.0], [0.1]])
    explain = Occlusion(model, patch=2, batch_size=batch_size)
    explanation = explain(images, offset, scale=scale, targets="all")
    expected = closed_form(model, images, 2, 0.0) * scale[..., None, None]
    assert_close(explanation.raw, expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        assert_close(explanation.outputs, model(images, offset, scale=scale))


def test_inputs_that_are_the_same_for_every_image():
    model, images = Affine((4, 4)).eval(), torch.rand(3, 3, 4, 4)
    explanation = Occlusion(model, patch=2)(images, torch.randn(4), scale=2.0, targets="all")
    assert_close(explanation.raw, closed_form(model, images, 2, 0.0) * 2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("shared", ["offset", "scale", "both"])
def test_inputs_for_every_image_that_have_as_many_rows_as_there_are_images(n, classes, shared):
    """An offset for each class is no row for each image, though its shape may look like one."""
    model, images = Affine((4, 4), classes=classes).eval(), torch.rand(n, 3, 4, 4)
    by_class, by_image = torch.randn(classes), torch.rand(n, 1) + 0.5
    offset = by_class if shared in ("offset", "both") else by_image
    scale = by_class.abs() + 0.5 if shared in ("scale", "both") else by_image
    explanation = Occlusion(model, patch=2)(images, offset, scale=scale, targets="all")
    # w * (x - b) and a scale: of the class or of the image
    factor = scale if scale.ndim == 2 else scale[None].expand(n, -1)
    signed = model.weight.detach() * images[:, None]
    expected = signed.sum(2).unfold(-2, 2, 2).unfold(-2, 2, 2).sum((-2, -1))
    expected = (expected * factor[..., None, None]).relu()
    assert_close(explanation.raw, expected, rtol=1e-4, atol=1e-4)


class Matching(nn.Module):
    """Compares each image with every text, as CLIP does."""

    def __init__(self):
        super().__init__()
        self.image, self.text = nn.Linear(48, 6), nn.Embedding(9, 6)

    def forward(self, images, texts):
        return self.image(images.flatten(1)) @ self.text(texts).mean(1).T


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("texts", [1, 3, 4])
@pytest.mark.parametrize("targets", [None, 0, "all"])
def test_texts_that_every_image_is_compared_with(n, texts, targets):
    model, images = Matching().eval(), torch.rand(n, 3, 4, 4)
    tokens = torch.randint(9, (texts, 5))
    together = Occlusion(model, patch=2)(images, tokens, targets=targets)
    with torch.no_grad():
        weight = (model.text(tokens).mean(1) @ model.image.weight).view(texts, 3, 4, 4)
    product = (weight * images[:, None]).sum(2).unfold(-2, 2, 2).unfold(-2, 2, 2).sum((-2, -1))
    index = together.targets[:, :, None, None].expand(-1, -1, 2, 2)
    assert_close(together.raw, product.relu().gather(1, index), rtol=1e-4, atol=1e-4)


def test_inputs_whose_rows_cannot_be_told():
    class Ordered(nn.Module):
        def forward(self, images, offset):
            order = torch.arange(len(images))[:, None]  # scores depend on the place in the batch
            return images.mean((2, 3)) * (order + 1) + offset.sum()

    with pytest.raises(ValueError, match="cannot tell which of the model's further inputs"):
        Occlusion(Ordered().eval(), patch=2)(torch.rand(2, 3, 4, 4), torch.rand(2))


class IntegratedGradients(camlens.Explainer):
    """The gradients along the line from black to the image, times the image."""

    def attribute(self, probe):
        gradients = 0
        for step in (torch.arange(32) + 0.5) / 32:
            traced = probe.run(probe.images * step, start="images")
            gradients = gradients + traced.image_gradients() / 32
        signed = gradients * probe.images[:, None]
        return camlens.Attribution(raw=signed.abs().sum(2), gradients=signed)


@pytest.mark.parametrize("chosen", [None, targets.top(2), 2, "all"])
def test_a_path_of_changed_images_is_explained_for_the_unchanged_images_class(chosen):
    """The sum is the score's difference between the ends, for one class and not for many."""

    class Flipping(nn.Module):
        def forward(self, x):
            mean = x.mean((1, 2, 3))[:, None]
            return torch.cat([mean, mean**2 * 3, -mean], dim=1)

    images = torch.rand(3, 3, 4, 4) / 2 + 0.5
    explanation = IntegratedGradients(Flipping().eval())(images, targets=chosen)
    if chosen is None:
        assert explanation.targets.tolist() == [[1]] * 3  # near black it is class 0
    assert_close(explanation.gradients.sum((2, 3, 4)), explanation.scores, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("first", ["changed", "unchanged"])
def test_the_unchanged_images_count_whichever_pass_comes_first(first, images):
    class Peeking(camlens.Explainer):
        def attribute(self, probe):
            if first == "unchanged":
                probe.unchanged()
            probe.run(probe.images * 0, sites=[Site("conv2")])
            probe.scores(lambda rows: probe.images[rows] * 0, torch.arange(3))
            return camlens.Attribution(raw=torch.ones(3, 1, 8, 8))

    model = Small().eval()
    explanation = Peeking(model)(images)
    with torch.no_grad():
        logits = model(images)
    assert_close(explanation.outputs, logits)
    assert explanation.targets.flatten().tolist() == logits.argmax(1).tolist()
    assert_close(explanation.scores[:, 0], logits.amax(1))


def test_selections_hold_the_logits_of_changed_images(images):
    model = Small().eval()
    batches = list(
        Probe(model, images).selections(
            lambda rows: images.flip(-1)[torch.tensor([0, 2, 1, 0, 2])[rows]],
            torch.tensor([0, 2, 1, 0, 2]),
            batch_size=2,
        )
    )
    assert [len(batch.scores) for batch in batches] == [2, 2, 1]
    with torch.no_grad():
        expected = model(images.flip(-1))[[0, 2, 1, 0, 2]]
    assert_close(torch.cat([batch.logits for batch in batches]), expected)
    assert not batches[0].scores.requires_grad


def test_changed_images_of_a_wrong_number(images):
    with pytest.raises(ValueError, match="expected"):
        Probe(Small().eval(), images).scores(lambda _: images[:1], torch.arange(3))


@pytest.mark.slow
@pytest.mark.parametrize("explainer", [camlens.GradCAM, camlens.EigenCAM, camlens.GuidedGradCAM])
@pytest.mark.parametrize("layer", ["net.conv2", None])
@pytest.mark.parametrize("keywords", [{}, {"flag": 1}])
def test_a_model_that_normalises_its_input_in_place(explainer, layer, keywords):
    class Normalises(nn.Module):
        def __init__(self, inplace):
            super().__init__()
            self.net, self.inplace = Small(), inplace

        def forward(self, x, flag=None):
            return self.net(x.sub_(0.5).div_(0.2) if self.inplace else (x - 0.5) / 0.2)

    inplace, plain = Normalises(True).eval(), Normalises(False).eval()
    inplace.load_state_dict(plain.state_dict())
    images = torch.rand(2, 3, 8, 8)
    before = images.clone()
    expected = explainer(plain, layer)(images, targets=1, **keywords)
    actual = explainer(inplace, layer)(images, targets=1, **keywords)
    assert torch.equal(images, before)
    assert_close(actual.raw, expected.raw)
    assert_close(actual.scores, expected.scores)


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_probe_of_changed_images_has_gradients_for_the_unchanged_images_classes(
    images, create_graph
):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Small()

        def forward(self, x, factor):
            return self.net(x) * factor

    model, factor = Scaled().eval(), torch.rand(3, 1) + 0.5
    probe = Probe(model, images, [factor], targets=targets.top(2), create_graph=create_graph)
    source = torch.tensor([2, 0, 2, 1])
    changed = torch.rand(4, 3, 8, 8)
    part = probe.changed(changed, source)
    run = part.run(start="images")
    assert torch.equal(run.selection.classes, probe.unchanged().classes[source])
    leaf = changed.clone().requires_grad_()
    scores = model(leaf, factor[source]).gather(1, run.selection.classes)
    assert_close(run.scores, scores)
    for k in range(2):
        (expected,) = torch.autograd.grad(scores[:, k].sum(), leaf, retain_graph=True)
        assert_close(run.image_gradients(keep_graph=True)[:, k], expected)
    assert probe.unchanged().scores.requires_grad is create_graph
