"""The promises of the README: nothing changes, and how one calls makes no difference."""

import contextlib
import copy
import threading
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

import camlens
from camlens.probe import passes

from .families import ALL, CAMS, EVERY, PATHS, PERTURBATIONS, TAILS, made
from .nets import SPELLINGS, Small, flops, hooks, real


@st.composite
def networks(draw):
    """A random small network, with its images."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    model = Small(
        draw(st.sampled_from(SPELLINGS)), draw(st.integers(1, 4)), draw(st.integers(2, 6))
    )
    n, h, w = (draw(st.integers(low, high)) for low, high in ((1, 4), (6, 13), (6, 13)))
    return model.eval(), torch.randn(n, model.conv1.in_channels, h, w)


few = settings(max_examples=3, deadline=None)


def state_of(model):
    """Return everything of a model, and of torch, that a call might change."""
    return {
        "tensors": {
            k: (id(v), v.detach().clone()) for k, v in model.state_dict(keep_vars=True).items()
        },
        "parameters": [(p.requires_grad, id(p.grad), _sum(p.grad)) for p in model.parameters()],
        "modules": [
            (
                m.training,
                getattr(m, "inplace", None),
                [len(getattr(m, h)) for h in vars(m) if h.endswith("_hooks")],
            )
            for m in model.modules()
        ],
        "attributes": [sorted(vars(m)) for m in model.modules()],
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "modes": torch._C._len_torch_function_stack(),
        "rng": torch.get_rng_state(),
    }


def _sum(gradient):
    return None if gradient is None else gradient.double().sum().item()


def assert_same(before, after):
    for name, (identity, value) in before.pop("tensors").items():
        assert after["tensors"][name][0] == identity
        assert torch.equal(after["tensors"][name][1], value)
    assert torch.equal(before.pop("rng"), after["rng"])
    assert before == {key: after[key] for key in before}


@pytest.mark.slow
@pytest.mark.parametrize("explainer", ALL)
@given(networks())
@few
def test_the_model_is_bit_identical_after_a_call(explainer, drawn):
    model, images = drawn
    given_images = images.clone()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = state_of(model)
    made(explainer, model)(images, targets="all")
    assert_same(before, state_of(model))
    assert torch.equal(images, given_images)
    assert images.grad is None
    assert not images.requires_grad


class Drawing(nn.Module):
    """A model with a head that draws random numbers in evaluation mode."""

    def __init__(self, head):
        super().__init__()
        self.net, self.wide, self.last = Small(), nn.Linear(5, 64), nn.Linear(64, 5)
        self.head = head

    def forward(self, x):
        return self.last(self.head(self.wide(self.net(x))))


@pytest.mark.parametrize("explainer", EVERY)
@pytest.mark.parametrize("images", [1, 2])
def test_scores_that_are_random_in_evaluation_mode_are_an_error(explainer, images):
    model = Drawing(lambda x: functional.dropout(x, 0.5, training=True)).eval()
    layer = "net.act" if explainer is camlens.CAM else "net.conv2"
    with pytest.raises(ValueError, match="random operations, such as dropout"):
        made(explainer, model, layer)(torch.rand(images, 3, 8, 8), targets=1)


def test_a_model_that_trains_with_its_maps_may_be_random():
    model = Drawing(lambda x: functional.dropout(x, 0.5, training=True)).eval()
    explanation = camlens.Saliency(model, create_graph=True)(torch.rand(2, 3, 8, 8), targets=1)
    assert explanation.raw.requires_grad


def test_a_model_that_draws_numbers_without_using_them_is_explained():
    images = torch.rand(2, 3, 8, 8)
    model = Drawing(lambda x: (torch.rand(1), x)[1]).eval()
    found = camlens.Saliency(model)(images, targets=1)
    model.head = nn.Identity().eval()
    assert torch.equal(found.raw, camlens.Saliency(model)(images, targets=1).raw)


class Normalizing(nn.Module):
    """A model that normalises its images in place, and takes what it needs out of a dictionary."""

    def __init__(self):
        super().__init__()
        self.net = Small()

    def forward(self, x, options=None):
        x.sub_(0.5).div_(0.2)
        if options is not None:
            x = x * options.pop("scale").mul_(2)
        return self.net(x)


@pytest.mark.slow
@pytest.mark.parametrize("explainer", ALL)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_a_model_that_writes_to_its_inputs_does_not_change_the_callers(explainer, requires_grad):
    model, images = Normalizing().eval(), torch.rand(2, 3, 8, 8)
    layer = "net.act" if explainer is camlens.CAM else "net.conv2"
    expected = made(explainer, model, layer)(images.clone(), targets=1).raw
    own = images.clone().requires_grad_(requires_grad)
    options = {"scale": torch.tensor(0.5)}
    assert_close(made(explainer, model, layer)(own, targets=1).raw, expected)
    assert_close(made(explainer, model, layer)(own, options, targets=1).raw, expected)
    assert torch.equal(own.detach(), images)
    assert options == {"scale": torch.tensor(0.5)}


@pytest.mark.slow
@pytest.mark.parametrize("explainer", EVERY)
@pytest.mark.parametrize("error", [RuntimeError("within"), KeyboardInterrupt()])
def test_the_model_is_bit_identical_after_an_exception_in_its_forward(explainer, error):
    class Failing(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Small()
            self.fail = False

        def forward(self, x):
            out = self.net(x)
            if self.fail:
                raise error
            return out

    model, images = Failing().eval(), torch.rand(2, 3, 8, 8)
    explain = made(explainer, model, "net.act" if explainer is camlens.CAM else "net.conv2")
    explain(images)
    model.fail = True
    before = state_of(model)
    with pytest.raises(type(error)):
        explain(images)
    assert_same(before, state_of(model))
    model.fail = False
    assert explain(images).evidence.any()


@pytest.mark.slow
@pytest.mark.parametrize("explainer", ALL)
@given(networks())
@few
def test_a_batch_is_its_single_images(explainer, drawn):
    model, images = drawn
    together = made(explainer, model)(images, targets=1)
    # Where two factorizations are nearly as good, rounding decides how far towards which it gets.
    part = 0.1 if explainer is camlens.DeepFeatureFactorization else 1e-4
    for n in range(len(images)):
        alone = made(explainer, model)(images[n : n + 1], targets=1)
        largest = together.raw.amax().item()
        assert_close(together.raw[n], alone.raw[0], rtol=max(1e-3, part), atol=largest * part)


@pytest.mark.slow
@pytest.mark.parametrize("explainer", ALL)
@given(networks())
@few
def test_several_targets_are_several_calls(explainer, drawn):
    model, images = drawn
    every = made(explainer, model)(images, targets="all")
    for k in range(every.targets.shape[1]):
        alone = made(explainer, model)(images, targets=k)
        assert_close(
            every.raw[:, k : k + 1], alone.raw, rtol=1e-3, atol=every.raw.amax().item() * 1e-4
        )
        assert_close(every.scores[:, k : k + 1], alone.scores)


@pytest.mark.slow
@pytest.mark.parametrize("explainer", EVERY)
@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_the_mode_around_the_call_makes_no_difference(explainer, around):
    model, images = Small().eval(), torch.rand(2, 3, 8, 8)
    expected = made(explainer, model)(images)
    with around():
        made_inside = images.clone()
        assert_close(made(explainer, model)(made_inside).raw, expected.raw)


@pytest.mark.parametrize("explainer", EVERY)
def test_frozen_parameters_make_no_difference(explainer):
    model, images = Small().eval(), torch.rand(2, 3, 8, 8)
    expected = made(explainer, model)(images)
    model.requires_grad_(False)
    assert_close(made(explainer, model)(images).raw, expected.raw)


@pytest.mark.slow
@pytest.mark.parametrize("explainer", EVERY)
def test_torchs_default_device_and_type_make_no_difference(explainer):
    """``torch.set_default_device("cuda")``: a value made on ``meta`` is an error."""
    model, images = Small().eval(), torch.randn(2, 3, 9, 7)
    expected, other = (made(explainer, model) for _ in range(2))
    expected = expected(images, targets=[[0, 1]])
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            explanation = other(images, targets=[[0, 1]])[[1, 0]]
            assert_close(explanation.heatmaps[[1, 0]], expected.heatmaps, rtol=0, atol=0)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("explainer", EVERY)
def test_channels_last_makes_no_difference(explainer):
    model, images = Small().eval(), torch.rand(2, 3, 8, 8)
    expected = made(explainer, model)(images)
    model.to(memory_format=torch.channels_last)
    actual = made(explainer, model)(images.contiguous(memory_format=torch.channels_last))
    assert_close(actual.raw, expected.raw, rtol=1e-3, atol=expected.raw.amax().item() * 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("explainer", EVERY)
@pytest.mark.parametrize("how", ["autocast", "bfloat16"])
def test_half_precision_gives_float32_maps(explainer, how, device):
    model, images = Small().eval(), torch.rand(2, 3, 16, 16)
    expected = made(explainer, model)(images, targets=1)
    if how == "autocast":
        context = torch.autocast(device.type, dtype=torch.bfloat16)
    else:
        context = contextlib.nullcontext()
        model, images = copy.deepcopy(model).bfloat16(), images.bfloat16()
    with context:
        actual = made(explainer, model)(images, targets=1)
    assert actual.raw.dtype == actual.scores.dtype == actual.heatmaps.dtype == torch.float32
    assert_close(actual.scores, expected.scores, rtol=0.03, atol=0.03)
    if explainer is camlens.Occlusion:  # a difference of two scores is as good as they are
        largest = expected.scores.abs().max().item()
        assert_close(actual.raw, expected.raw, rtol=0.05, atol=2**-6 * largest)
        return
    # bfloat16 has 8 bits, and a ReLU near zero may flip: the maps agree as pictures do
    similarity = nn.functional.cosine_similarity(actual.raw.flatten(1), expected.raw.flatten(1))
    assert (similarity > 0.97).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "explainer", [camlens.GradCAM, camlens.GuidedBackprop, camlens.GuidedGradCAM]
)
@pytest.mark.parametrize("wrap", ["compile", "compile in place", "compiled part", "DataParallel"])
def test_wrapped_models(explainer, wrap):
    model, images = Small().eval(), torch.rand(2, 3, 8, 8)
    expected = made(explainer, model)(images)
    with torch.no_grad():
        expected_scores = model(images)
    runs = []

    def backend(graph, _):
        return lambda *args: (runs.append(graph), graph(*args))[1]

    if wrap == "compile":
        model = torch.compile(model, backend=backend)
    elif wrap == "compile in place":
        model.compile(backend=backend)
    elif wrap == "compiled part":
        model.conv2 = torch.compile(model.conv2, backend=backend)
    else:
        model = nn.DataParallel(model)
    explanation = made(explainer, model)(images)
    assert runs == []
    assert_close(explanation.raw, expected.raw)
    assert explanation.layers == expected.layers
    assert torch.compiler.is_compiling() is False
    if wrap != "DataParallel":
        with torch.no_grad():
            assert_close(model(images), expected_scores)
        assert runs  # afterwards it runs compiled, as before


def test_a_compiled_model_that_has_run_before():
    model, images = Small().eval(), torch.rand(2, 3, 8, 8)
    expected = camlens.GradCAM(model, "conv2")(images)
    model.compile(backend="eager")
    with torch.no_grad():
        model(images)
    assert_close(camlens.GradCAM(model, "conv2")(images).raw, expected.raw)


def test_distributed_data_parallel(tmp_path):
    model, images = Small().eval(), torch.rand(2, 3, 8, 8)
    expected = camlens.GradCAM(model, "act")(images)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        assert_close(camlens.GradCAM(wrapped, "module.act")(images).raw, expected.raw)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize(
    "explainer", [camlens.GradCAM, camlens.GuidedGradCAM, camlens.GuidedBackprop, camlens.LRP]
)
def test_eight_threads_share_a_model(explainer):
    explain = made(explainer, Small("inplace").eval())
    assert_threads_agree(explain, [torch.rand(2, 3, 8, 8) for _ in range(8)])


def assert_threads_agree(explain, batches):
    """Explain each batch on a thread of its own, several times at once, as on one thread."""
    expected = [explain(images, targets=[[0, 3]]).raw for images in batches]
    before = state_of(explain.model)
    found, failures = {}, []
    start = threading.Barrier(len(batches))

    def work(i):
        try:
            start.wait()
            for _ in range(4):
                found[i] = explain(batches[i], targets=[[0, 3]]).raw
                torch.testing.assert_close(found[i], expected[i], rtol=1e-4, atol=1e-6)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(found) == len(batches)
    assert_same(before, state_of(explain.model))


def test_eight_threads_on_a_partly_compiled_model_restore_the_compiler():
    model, images = Small().eval(), torch.rand(2, 3, 8, 8)
    expected = camlens.GradCAM(model, "conv2")(images).raw
    model.conv1 = torch.compile(model.conv1, backend="eager")
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(camlens.GradCAM(model, "conv2")(images).raw))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    for result in results:
        assert_close(result, expected)
    assert torch._dynamo.eval_frame._stance.stance == "default"


@pytest.mark.parametrize("explainer", CAMS)
def test_half_failing_calls_leave_no_hook(explainer):
    model = Small().eval()
    with pytest.raises(LookupError):
        explainer(model, ["conv2", "act6"])(torch.rand(1, 3, 8, 8))
    assert hooks(model) == 0


def test_nothing_is_kept_of_a_call():
    explainer = camlens.GradCAM(Small().eval(), "conv2")
    images = torch.rand(2, 3, 8, 8)
    gone = weakref.ref(images)
    explainer(images)
    del images
    assert gone() is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer", "head", "cells"),
    [
        ("resnet18", "layer4", 512 * 1000, 512 * 2 * 2),
        ("alexnet", "features.10", 9216 * 4096 + 4096 * 4096 + 4096 * 1000, 256 * 3 * 3),
    ],
)
def test_only_the_tail_is_paid_for(name, layer, head, cells):
    """Forward, backward through the linear layers, the weighted sum: counted, not timed."""
    model, images = real(name, 64)

    with torch.no_grad():
        bare = flops(lambda: model(images))
    each = 2 * (head + cells)
    explain = camlens.GradCAM(model, layer)
    explain(images)  # the first call measures the layer
    assert flops(lambda: explain(images)) == bare + each
    assert flops(lambda: explain(images, targets=[[0] * 7])) == bare + 7 * each
    assert flops(lambda: camlens.GuidedBackprop(model)(images)) == 2 * bare


class Watch(TorchDispatchMode):
    """Count what waits for a device, and remember the largest tensor made."""

    def __init__(self):
        super().__init__()
        self.reads, self.largest = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.reads += name in ("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero")
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out._base is None:
            self.largest = max(self.largest, out.untyped_storage().nbytes())
        return out


class Transfers(TorchFunctionMode):
    """Collect the calls that would copy between a device and main memory."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        to_device = name == "to" and any(
            isinstance(a, (str, torch.device)) for a in (*args[1:], *kwargs.values())
        )
        if name in ("cpu", "cuda", "numpy", "tolist") or to_device:
            self.calls.append(name)
        return func(*args, **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize("explainer", EVERY)
@pytest.mark.parametrize("targets", [None, 1, "all"])
def test_a_call_waits_for_the_device_once_and_moves_nothing(explainer, targets):
    explain, images = made(explainer, Small().eval()), torch.rand(2, 3, 8, 8)
    explain(images)
    with Watch() as watch, Transfers() as transfers:
        explain(images, targets=targets).heatmaps  # noqa: B018
    # Selection.check, at the end; CAM checks that it is defined as well, and Score-CAM counts the
    # channels that are not constant; a tail checks its rows, and its scores of what is unchanged.
    more = {camlens.CAM: 1, camlens.ScoreCAM: 1, **dict.fromkeys(TAILS, 2)}
    assert watch.reads == 1 + more.get(explainer, 0)
    if explainer in (*PERTURBATIONS, *PATHS, *TAILS):
        assert set(transfers.calls) <= {"to"}  # random numbers and targets, there and not back
        return
    assert transfers.calls == (["to"] if targets == 1 else [])  # the class, there and not back


def test_pictures_stay_on_the_device():
    images, heat = torch.rand(2, 3, 8, 8), torch.rand(2, 2, 8, 8)
    with Watch() as watch, Transfers() as transfers:
        camlens.contours(camlens.overlay(images, heat), heat)
    assert watch.reads == 3  # the range of the images, and twice that of the heatmaps
    assert transfers.calls == ["to"]  # the colormap, there and not back


@pytest.mark.slow
def test_a_thousand_classes_never_lie_in_memory_at_once():
    model, _ = real("resnet18", 64)
    images = torch.rand(16, 3, 64, 64)
    with Watch() as watch:
        explanation = camlens.GradCAM(model, "layer4")(images, targets="all")
    assert explanation.raw.shape == (16, 1000, 2, 2)
    every = 1000 * 16 * 512 * 2 * 2 * 4
    assert watch.largest < 2 * passes.CHUNK_BYTES < every
