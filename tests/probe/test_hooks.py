"""Runs with hooks: nothing is left behind, and runs do not see each other."""

import contextlib
import dis
import functools
import random
import signal
import sys
import threading
import time

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import camlens
from camlens.intercept import BackwardRule
from camlens.methods import gradient as rules
from camlens.probe import Probe, Site
from camlens.probe import hooks as hooks_module
from camlens.probe.hooks import Call, run_hooked, undisturbed

from ..families import ATTENTION
from ..nets import Small, hooks, plain_gradients


def stance():
    return torch._dynamo.eval_frame._stance.stance


def modes():
    """Everything of the thread and of the process that a run changes for its length."""
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch._C._len_torch_function_stack(),
        stance(),
        len(hooks_module._uncompiled.users),
        hooks_module._thread.see,
    )


@pytest.fixture
def images():
    return torch.rand(3, 3, 8, 8)


def test_every_layer_is_shown_in_running_order_and_can_be_replaced(images):
    model = Small().eval()
    seen = []

    def see(name, inputs, output):
        seen.append((name, inputs[0].shape[1], output.shape[1]))
        return output * 0 if name == "conv2" else None

    layers = {"conv2": model.conv2, "conv1": model.conv1}
    call = Call(model, (images,), {})
    scores, recording = run_hooked(call, layers, see, gradients=False, mode=None)
    assert seen == [("conv1", 3, 6), ("conv2", 6, 8)]
    assert recording is False
    with torch.no_grad():
        expected = model.head(model.norm2(torch.zeros(3, 8, 4, 4)).relu().mean((-2, -1)))
    assert_close(scores, expected)
    assert hooks(model) == 0


@pytest.mark.parametrize("outer", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("gradients", [True, False])
def test_grad_mode_comes_back(outer, gradients):
    model = Small().eval()
    with outer():
        before = modes()
        call = Call(model, (torch.rand(1, 3, 8, 8),), {})
        _, recording = run_hooked(call, {}, print, gradients=gradients, mode=None)
        assert recording == gradients
        assert modes() == before
        assert camlens.GradCAM(model, "conv2")(torch.rand(1, 3, 8, 8)).raw.isfinite().all()
        assert modes() == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("rule", [None, rules.guided_rule])
@pytest.mark.parametrize("compiled", [False, True])
def test_nothing_is_left_after_an_exception(images, error, rule, compiled):
    model = Small().eval()
    if compiled:
        model.conv1.compile(backend="eager")

    def see(name, *_):
        if name == "conv2":
            raise error

    before = modes()
    layers = {"conv1": model.conv1, "conv2": model.conv2}
    mode = None if rule is None else BackwardRule(rule)
    with pytest.raises(error):
        run_hooked(Call(model, (images,), {}), layers, see, gradients=True, mode=mode)
    assert hooks(model) == 0
    assert modes() == before


def test_another_thread_sees_nothing_of_a_run(images):
    model = Small().eval()
    with torch.no_grad():
        expected = model(images)
    inside, outputs = [], {}

    def see(name, *_):
        inside.append(name)
        if len(inside) == 1:
            thread = threading.Thread(target=lambda: outputs.update(elsewhere=model(images)))
            thread.start()
            thread.join()

    rule = BackwardRule(rules.deconvnet_rule)
    layers = {"conv1": model.conv1, "conv2": model.conv2}
    run_hooked(Call(model, (images,), {}), layers, see, gradients=False, mode=rule)
    assert inside == ["conv1", "conv2"]
    assert_close(outputs["elsewhere"].detach(), expected)
    # That thread's gradients are recorded, and pass its ReLUs as ever.
    gradient = torch.autograd.grad(outputs["elsewhere"].sum(), model.conv1.weight)[0]
    assert_close(gradient, torch.autograd.grad(model(images).sum(), model.conv1.weight)[0])


def test_threads_that_run_the_model_in_their_targets(images):
    """Eight threads, each with its own reference, on one model."""
    model = Small().eval()
    explain = camlens.GradCAM(model, "conv2")
    references = [torch.rand(1, 3, 8, 8) for _ in range(8)]
    expected = explain(images, targets=2).raw
    start, wrong = threading.Barrier(8), []

    def work(reference):
        def targets(out):
            with torch.no_grad():
                constant = model(reference)[:, 2]
            return out[:, 2] - constant

        start.wait()
        for _ in range(5):
            raw = explain(images, targets=targets).raw
            if not torch.allclose(raw, expected, rtol=1e-4, atol=1e-6):
                wrong.append(raw)

    threads = [threading.Thread(target=work, args=(r,)) for r in references]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert hooks(model) == 0


@pytest.mark.parametrize("layers", [["conv2"], ["conv1", "conv2"], ["norm1", "conv2", "act"]])
@pytest.mark.parametrize("n", [1, 3])
def test_targets_that_run_the_model_on_other_images(layers, n):
    model, images, reference = Small().eval(), torch.rand(n, 3, 8, 8), torch.rand(1, 3, 8, 8)

    def beyond_reference(out):
        with torch.no_grad():
            constant = model(reference)[:, [0, 3]]
        return out[:, [0, 3]] - constant

    explain = camlens.GradCAM(model, layers)
    plain = explain(images, targets=[[0, 3]])
    relative = explain(images, targets=beyond_reference)
    assert plain.raw.any()
    assert_close(relative.raw, plain.raw)
    with torch.no_grad():
        assert_close(relative.scores, (model(images) - model(reference))[:, [0, 3]])
    for explainer in (camlens.Saliency, camlens.GuidedBackprop):
        explained = explainer(model)(images, targets=beyond_reference)
        assert_close(explained.gradients, explainer(model)(images, targets=[[0, 3]]).gradients)


@pytest.mark.parametrize("explainer", [camlens.GradCAM, camlens.GuidedGradCAM])
def test_targets_that_are_computed_without_gradients(images, explainer):
    model = Small().eval()

    def constant(out):
        with torch.no_grad():
            return out[:, 0] - model(images)[:, 0]

    with pytest.raises(ValueError, match=r"no gradient: .*Use no_grad only around constants"):
        explainer(model, "conv2")(images, targets=constant)


@pytest.mark.slow
@pytest.mark.parametrize("outer", [camlens.GradCAM, camlens.GuidedBackprop, camlens.GuidedGradCAM])
@pytest.mark.parametrize("inner", [camlens.GradCAM, camlens.Saliency, camlens.Deconvnet])
@pytest.mark.parametrize("where", ["targets", "forward hook", "hook within a hook"])
def test_explainers_nested_in_each_other(images, outer, inner, where):
    model, other = Small().eval(), torch.rand(2, 3, 8, 8)

    def make(explainer):
        layered = explainer in (camlens.GradCAM, camlens.GuidedGradCAM)
        return explainer(model, "conv2") if layered else explainer(model)

    expected_outer = make(outer)(images, targets="all").raw
    expected_inner = make(inner)(other, targets=1).raw
    results = []

    if where == "targets":

        def targets(out):
            results.append(make(inner)(other, targets=1).raw)
            return out

        actual = make(outer)(images, targets=targets).raw
    else:
        depth = 1 if where == "forward hook" else 2

        def nest(*_):
            if len(running) < depth:
                running.append(1)
                results.append(make(inner)(other, targets=1).raw)

        running: list[int] = []
        handles = [layer.register_forward_hook(nest) for layer in (model.norm1, model.norm2)]
        actual = make(outer)(images, targets="all").raw
        for handle in handles:
            handle.remove()
    assert results
    for result in results:
        assert_close(result, expected_inner)
    assert expected_outer.any()
    assert_close(actual, expected_outer)
    assert hooks(model) == 0


def _register(_, __, output):
    output.register_hook(lambda gradient: gradient)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["conv1", "act", "conv2", "norm2", "head"])
@pytest.mark.parametrize("explainer", [camlens.GradCAM, camlens.EigenCAM, camlens.GuidedGradCAM])
@pytest.mark.parametrize("targets", [1, "all"])
def test_forward_hooks_of_the_user_that_register_hooks_on_tensors(
    images, place, explainer, targets
):
    model = Small().eval()
    expected = explainer(model, "conv2")(images, targets=targets).raw
    handle = getattr(model, place).register_forward_hook(_register)
    assert_close(explainer(model, "conv2")(images, targets=targets).raw, expected)
    saliency = camlens.Saliency(model)(images, targets=targets).raw
    assert hooks(model) == 1
    handle.remove()
    assert_close(saliency, camlens.Saliency(model)(images, targets=targets).raw)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["conv1", "conv2", "head", ""])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("explainer", [camlens.GradCAM, camlens.GuidedGradCAM])
def test_forward_hooks_of_the_user_that_run_the_model(images, place, fails, explainer):
    model = Small().eval()
    expected = explainer(model, "conv2")(images, targets=1)
    within = []

    def run_on_others(*_):
        if not within:
            within.append(True)
            with contextlib.suppress(RuntimeError):
                model(torch.rand(3, 1 if fails else 3, 8, 8))
            within.pop()

    model.get_submodule(place).register_forward_hook(run_on_others)
    actual = explainer(model, "conv2")(images, targets=1)
    assert_close(actual.raw, expected.raw)
    assert_close(actual.scores, expected.scores)
    assert hooks(model) == 1


def test_forward_hooks_of_the_user_see_the_gradients_that_pass_them(images):
    model, seen = Small().eval(), []
    model.act.register_forward_hook(lambda _, __, out: out.register_hook(seen.append) and None)
    camlens.GradCAM(model, "conv2")(images, targets=1)
    weights = (model.head.weight[1] / 16).view(1, 8, 1, 1).expand(3, 8, 4, 4)
    assert_close(seen[-1], weights.detach())


def test_a_hook_on_a_tensor_that_never_needs_a_gradient(images):
    model = Small().eval().requires_grad_(False)
    model.conv1.register_forward_hook(_register)
    with pytest.raises(ValueError, match=r"forward hooks, on one of \['conv1'\], registers"):
        camlens.GradCAM(model, "conv2")(images)
    assert hooks(model) == 1


class Padded(nn.Module):
    """Patches, a transformer that is given a padding mask, and the mean of its tokens."""

    def __init__(self, **options):
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 3)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, **options)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=not options)

    def forward(self, x, mask=None):
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.encoder(x, src_key_padding_mask=mask).mean(1))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"norm_first": True}, {"activation": "gelu"}])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("layer", ["patches", "encoder.layers.0", "encoder.layers.1", "encoder"])
def test_padding_masks(options, n, masked, layer):
    model, images = Padded(**options).eval(), torch.randn(n, 3, 16, 16)
    mask = torch.zeros(n, 16, dtype=torch.bool)
    mask[0, 12:] = masked
    layout = camlens.layouts.nchw if layer == "patches" else camlens.layouts.tokens(0, (4, 4))
    output, gradients = plain_gradients(model, model.get_submodule(layer), images, mask)
    maps = layout(output)
    by_cell = torch.stack([layout(gradients[:, k]) for k in range(3)], dim=1)
    methods = camlens.methods.cam
    explanation = camlens.GradCAM(model, layer, layout=layout)(images, mask=mask, targets="all")
    assert explanation.evidence.any()
    assert_close(explanation.raw, methods.grad_cam(maps, by_cell), rtol=1e-4, atol=1e-6)
    eigen = camlens.EigenCAM(model, layer, layout=layout)(images, mask=mask)
    assert_close(eigen.raw, methods.eigen_cam(maps), rtol=1e-3, atol=1e-4)


def test_a_padding_mask_changes_nothing_of_the_models_fast_path():
    model, images = Padded().eval(), torch.randn(2, 3, 16, 16)
    mask = torch.zeros(2, 16, dtype=torch.bool)
    enabled = torch.backends.mha.get_fastpath_enabled()
    camlens.GradCAM(model, "patches")(images, mask=mask)
    assert torch.backends.mha.get_fastpath_enabled() == enabled


# Interrupts.


def _plain():
    net = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2))
    return net.eval()


def _compiled():
    model = _plain()
    model[1].compile(backend="eager")
    return model


def _with_attention():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.fused = _plain(), nn.MultiheadAttention(2, 1)

        def forward(self, x):
            x = self.net(x)
            return x + self.fused(x, x, x)[0]

    return Attending().eval()


def _transformer():
    """A block on one token each of four pixels, for images of 4 x 4."""

    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.head = nn.Conv2d(3, 4, 2, 2), nn.Linear(4, 2)
            self.block = nn.TransformerEncoderLayer(4, 2, 4, activation="gelu", batch_first=True)

        def forward(self, x):
            return self.head(self.block(self.patches(x).flatten(2).mT).mean(1))

    return Transformer().eval()


SUBJECTS = {
    "GradCAM": lambda: camlens.GradCAM(_plain(), "1"),
    "GuidedBackprop": lambda: camlens.GuidedBackprop(_plain()),
    "GuidedGradCAM": lambda: camlens.GuidedGradCAM(_plain(), "1"),
    "GradCAM, compiled": lambda: camlens.GradCAM(_compiled(), "1"),
    "GradCAM, fused attention": lambda: camlens.GradCAM(_with_attention(), "net.1"),
    "LRP": lambda: camlens.LRP(_plain()),
    "AttnLRP": lambda: camlens.AttnLRP(_transformer()),
    **{
        explainer.__name__: lambda e=explainer: e(_transformer(), blocks=["block"])
        for explainer in ATTENTION
    },
}


class InterruptAt:
    """Raise KeyboardInterrupt at the n-th place where Python could run a signal's handler.

    That is after a call, at the start of a function and at a jump back.

    Args:
        place: the n; None: only count the places.
        files: endings of the files in whose frames places are counted.
    """

    def __init__(self, place, files):
        self.place, self.files, self.passed = place, files, 0

    def __enter__(self):
        sys.settrace(self.start)
        return self

    def __exit__(self, *_):
        sys.settrace(None)

    def start(self, frame, event, _):
        if not frame.f_code.co_filename.endswith(self.files):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        previous = ["RESUME"]

        def trace(frame, event, _):
            if event == "opcode":
                if previous[0].startswith(("CALL", "RESUME", "JUMP_BACKWARD")):
                    self.passed += 1
                    if self.passed == self.place:
                        raise KeyboardInterrupt
                previous[0] = _operations(frame.f_code)[frame.f_lasti]
            return trace

        return trace


#: The files that change a thread's state.
CRITICAL = (
    *("camlens/probe/hooks.py", "torch/overrides.py", "eval_frame.py"),
    *(
        f"camlens/intercept/{name}.py"
        for name in (
            *("modes", "rectifiers", "attention_probabilities", "attention_by_definition"),
            *("relevance/layers", "relevance/transformers", "relevance/backward"),
        )
    ),
)


@functools.cache
def _operations(code):
    return {i.offset: i.opname for i in dis.get_instructions(code, show_caches=False)}


@pytest.mark.slow
@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("around", [torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("most", [80, pytest.param(200, marks=pytest.mark.exhaustive)])
def test_an_interrupt_at_every_place_of_a_call_leaves_nothing(subject, around, most):
    """Of a call with many places, some are tried, others with and without gradients."""
    explain, images = SUBJECTS[subject](), torch.rand(1, 3, 4, 4)
    expected = explain(images, targets=0)
    with InterruptAt(None, CRITICAL) as count:
        explain(images, targets=0)
    assert count.passed > 50
    stride = 1 + count.passed // most
    first = 1 if around is torch.enable_grad else 1 + stride // 2
    before = modes()
    for place in range(first, count.passed + 1, stride):
        with around():
            inside = modes()
            try:
                with InterruptAt(place, CRITICAL):
                    explain(images, targets=0)
            except KeyboardInterrupt:
                pass
            assert modes() == inside, f"interrupted at place {place}"
        assert modes() == before
        assert hooks(explain.model) == 0
    assert_close(explain(images, targets=0).raw, expected.raw)


# Python ignores, with a warning, what a handler raises within a callback of a weak reference or of
# the garbage collector.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("times", [300, pytest.param(2500, marks=pytest.mark.exhaustive)])
def test_interrupts_by_real_signals_leave_nothing(times):
    """A timer whose handler raises KeyboardInterrupt, as Ctrl-C's does, at random moments."""
    images, draw, interrupted = torch.rand(1, 3, 4, 4), random.Random(0), 0
    subjects, durations = [make() for make in SUBJECTS.values()], {}
    for explain in subjects:
        explain(images)
        start = time.perf_counter()
        for _ in range(20):
            explain(images)
        durations[explain] = (time.perf_counter() - start) / 20
    before = modes()

    def interrupt(*_):
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        end = time.monotonic() + 60
        while interrupted < times and time.monotonic() < end:
            explain = draw.choice(subjects)
            try:
                delay = max(2e-6, 1.05 * draw.random() * durations[explain])
                signal.setitimer(signal.ITIMER_REAL, delay)
                explain(images)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
            try:  # noqa: SIM105  the timer may strike between any two calls
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                pass
            assert modes() == before
            assert hooks(explain.model) == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert interrupted > 0.4 * times


def test_undisturbed_restores_what_its_work_changed():
    def work():
        torch.set_grad_enabled(False)
        BackwardRule(rules.guided_rule).__enter__()
        raise KeyboardInterrupt

    before = modes()
    with pytest.raises(KeyboardInterrupt):
        undisturbed(work)
    assert modes() == before


def test_a_rule_that_was_left_entered_is_inert_and_goes_at_the_next_call():
    left = BackwardRule(rules.deconvnet_rule)
    left.__enter__()
    left.live = False
    x = torch.tensor([-1.0], requires_grad=True)
    assert torch.autograd.grad(x.relu().sum(), x)[0].item() == 0
    undisturbed(lambda: None)
    assert torch._C._len_torch_function_stack() == 0


def test_a_hook_that_was_left_is_inert(images):
    model, seen = Small().eval(), []

    def see(*shown):
        seen.append(shown)

    depth = hooks_module._Depth(see)
    depth.count(model, [])
    model.conv2._forward_hooks_with_kwargs[1] = True
    model.conv2._forward_hooks[1] = hooks_module._Hook("conv2", see, depth)
    probe = Probe(model, images)
    probe.run(sites=[Site("conv1")])
    model(images)
    assert seen == []
    assert depth.calls == 0


def test_hooks_that_another_thread_calls_while_they_are_being_removed():
    """torch then passes no keyword inputs: it has forgotten already that the hook takes them."""
    see = print
    depth = hooks_module._Depth(see)
    assert hooks_module._Hook("layer", see, depth)(nn.Identity(), (1,), 2) is None
    assert hooks_module._EntryHook("layer", print, see, depth)(nn.Identity(), (1,)) is None
