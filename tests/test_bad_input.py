"""What a call cannot do is an error that says what was expected, what came, and the remedy."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import camlens

from .families import made
from .nets import Small, hooks

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(
    params=[
        camlens.GradCAM,
        camlens.CAM,
        camlens.EigenCAM,
        camlens.GuidedBackprop,
        camlens.GuidedGradCAM,
    ]
)
def explainer_class(request):
    return request.param


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ([1, 2], TypeError, r"expected images as a \(N, C, H, W\) tensor, got list: convert with"),
        (IMAGES[0], ValueError, r"got \(3, 8, 8\): add the batch dimension with images.unsqueeze"),
        (IMAGES[:0], ValueError, r"no empty dimension, got \(0, 3, 8, 8\)"),
        (IMAGES[0, 0], ValueError, r"expected images as \(N, C, L\), \(N, C, H, W\)"),
        (
            (IMAGES * 255).byte(),
            TypeError,
            r"got torch\.uint8: convert with images.float\(\) / 255",
        ),
    ],
)
def test_images(explainer_class, images, error, message):
    with pytest.raises(error, match=message):
        made(explainer_class, Small().eval())(images)


def test_no_model(explainer_class):
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module, got function"):
        made(explainer_class, lambda x: x)


def test_training_mode(explainer_class):
    model = Small()
    with pytest.raises(ValueError, match=r"in training mode \(the model itself, .*model\.eval\(\)"):
        made(explainer_class, model)(IMAGES)
    model.eval()
    model.norm2.train()
    with pytest.raises(ValueError, match=r"training mode \(norm2\)"):
        made(explainer_class, model)(IMAGES)


@pytest.mark.parametrize("explainer", [camlens.GradCAM, camlens.GuidedGradCAM])
def test_layers(explainer):
    model = Small().eval()
    with pytest.raises(LookupError, match="no layer 'conv3'; similar names: conv"):
        explainer(model, "conv3")
    with pytest.raises(LookupError, match="not a part of Small"):
        explainer(model, nn.ReLU())
    with pytest.raises(LookupError, match=r"\['act6'\] did not run"):
        explainer(model, "act6")(IMAGES)
    assert hooks(model) == 0


@pytest.mark.parametrize("explainer", [camlens.GradCAM, camlens.GuidedGradCAM])
def test_a_layer_without_a_grid(explainer):
    model = Small().eval()
    with pytest.raises(ValueError, match=r"'head'.*\(N, 5\)"):
        explainer(model, "head")(IMAGES)
    assert hooks(model) == 0


def test_a_single_cell_says_nothing():
    model = nn.Sequential(nn.Conv2d(3, 4, 8), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2)).eval()
    with pytest.raises(ValueError, match=r"gives a single cell .*has no positions to show"):
        camlens.GradCAM(model, "1")(IMAGES)


@pytest.mark.parametrize("targets", [5, [0, -1]])
def test_targets_out_of_range(explainer_class, targets):
    with pytest.raises(ValueError, match="expected classes 0 to 4, got"):
        made(explainer_class, Small().eval())(IMAGES, targets=targets)


def test_scores_that_are_not_finite(explainer_class):
    images = IMAGES.clone()
    images[1, 0, 0, 0] = float("nan")
    explainer = made(explainer_class, Small().eval())
    with pytest.raises(ValueError, match=r"the images \[1\] .*not finite"):
        explainer(images)
    explainer(IMAGES)  # measures the layer
    with pytest.raises(ValueError, match=r"scores of the images \[1\] are not finite"):
        explainer(images)


def test_scores_for_another_number_of_images(explainer_class):
    with pytest.raises(ValueError, match="expected one row of scores for each of 2 images"):
        made(explainer_class, Small().eval())(IMAGES, targets=lambda out: out[:1, 0])


def test_scores_that_do_not_depend_on_the_layer():
    model = Small().eval()
    explain, saliency = camlens.GradCAM(model, "conv2"), camlens.Saliency(model)
    for constant in (lambda out: torch.ones_like(out[:, 0]), lambda out: out.detach()):
        for explainer in (explain, saliency):
            with pytest.raises(ValueError, match="explained scores have no gradient"):
                explainer(IMAGES, targets=constant)

    def elsewhere(_):
        return model.head.bias[:1].expand(2)

    with pytest.raises(ValueError, match=r"do not depend on \['conv2'\]"):
        explain(IMAGES, targets=elsewhere)
    with pytest.raises(ValueError, match=r"do not depend on \['the images'\]"):
        saliency(IMAGES, targets=elsewhere)
    assert hooks(model) == 0


def test_guided_without_a_relu_and_with_another_rectifier():
    smooth = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(144, 2)).eval()
    leaky = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.LeakyReLU(), nn.Flatten(), nn.Linear(144, 2)
    ).eval()
    for explainer in (camlens.GuidedBackprop, camlens.Deconvnet, camlens.GuidedGradCAM):
        with pytest.raises(ValueError, match="no ReLU ran"):
            made(explainer, smooth, "0")(IMAGES)
        with pytest.raises(ValueError, match=r"also uses leaky_relu\. Use camlens\.Saliency"):
            made(explainer, leaky, "0")(IMAGES)
    assert hooks(leaky) == 0


def test_parameters_made_in_inference_mode():
    with torch.inference_mode():
        model = Small().eval()
    with pytest.raises(
        ValueError, match=r"parameters or buffers were made in torch\.inference_mode"
    ):
        camlens.GradCAM(model, "conv2")(IMAGES)


def test_an_error_of_the_models_own_passes_and_leaves_nothing(explainer_class):
    model = Small().eval()
    with pytest.raises(RuntimeError, match="channels"):
        made(explainer_class, model)(torch.rand(2, 4, 8, 8))
    assert hooks(model) == 0
    assert torch.is_grad_enabled()


def test_find_layers_checks_what_it_is_given():
    model = Small()
    with pytest.raises(ValueError, match=r"in training mode .*model\.eval\(\)"):
        camlens.find_layers(model, IMAGES)
    assert model.norm1.num_batches_tracked == 0
    with pytest.raises(ValueError, match="add the batch dimension"):
        camlens.find_layers(model.eval(), IMAGES[0])
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module, got str"):
        camlens.find_layers("model", IMAGES)


def sequential():
    torch.manual_seed(4)
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU6()),
        *(nn.Flatten(), nn.Linear(144, 3)),
    ).eval()


LAYERED = [camlens.GradCAM, camlens.CAM, camlens.EigenCAM, camlens.GuidedGradCAM]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("explainer", LAYERED)
@pytest.mark.parametrize("how", ["part", "script", "trace", "freeze"])
def test_scripted_models(explainer, how):
    model = sequential()
    if how == "part":
        model[1] = torch.jit.script(model[1])
    else:
        plain, scripted = model, torch.jit.script(model)
        model = {
            "script": scripted,
            "trace": torch.jit.trace(plain, IMAGES),
            "freeze": torch.jit.freeze(scripted),
        }[how]
        expected = camlens.Saliency(plain)(IMAGES, targets="all").raw
        assert_close(camlens.Saliency(model)(IMAGES, targets="all").raw, expected)
    if how == "freeze":  # its layers are gone
        with pytest.raises(LookupError, match="has no layer '1'; similar names: none"):
            explainer(model, "1")
        return
    with pytest.raises(ValueError, match="layer '1' is a TorchScript module, which takes no hooks"):
        explainer(model, "1")(IMAGES)


class Mapped(nn.Module):
    """A network whose body runs as ``run(body, images)``."""

    def __init__(self, run):
        super().__init__()
        self.run, self.body = run, nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.head = nn.Linear(4, 2)

    def forward(self, images):
        return self.head(self.run(self.body, images).mean((-2, -1)))


@pytest.mark.parametrize(
    "run",
    [
        lambda body, x: torch.cat([body(image[None]) for image in x]),
        lambda body, x: torch.stack([body(image) for image in x]),
        lambda body, x: torch.cat([body(part) for part in x.split(max(1, len(x) // 3))]),
    ],
)
def test_layers_that_run_with_a_part_of_the_images_name_the_remedy(run):
    explainer = camlens.GradCAM(Mapped(run).eval(), "body")
    with pytest.raises(
        ValueError, match=r"'body' runs (\d+) times .* a part .*one image .*layouts\.nchw"
    ):
        explainer(IMAGES)


def test_layers_inside_vmap_name_the_remedy():
    model = Mapped(lambda body, x: torch.vmap(lambda image: body(image[None])[0])(x)).eval()
    for explain in (camlens.GradCAM(model, "body"), camlens.FullGrad(model)):
        with pytest.raises(ValueError, match=r"runs inside torch\.vmap.*without vmap"):
            explain(IMAGES)
    for explain in (camlens.GuidedBackprop(model), camlens.LRP(model)):
        with pytest.raises(ValueError, match=r"torch\.vmap.*camlens\.IntegratedGradients"):
            explain(IMAGES)
    plain = Mapped(lambda body, x: body(x)).eval()
    plain.load_state_dict(model.state_dict())
    expected = camlens.Saliency(plain)(IMAGES, targets="all").raw
    assert_close(camlens.Saliency(model)(IMAGES, targets="all").raw, expected)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_the_relus_of_a_scripted_model_are_not_seen():
    with pytest.raises(ValueError, match=r"no ReLU ran: .*scripted module"):
        camlens.GuidedBackprop(torch.jit.script(sequential()))(IMAGES)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_layers_beside_a_scripted_one():
    model = sequential()[:2].append(nn.Flatten()).append(nn.Linear(144, 2)).eval()
    model[1] = torch.jit.script(model[1])
    assert [layer.name for layer in camlens.find_layers(model, IMAGES)] == ["0"]
    assert camlens.GradCAM(model)(IMAGES).layers == ("0",)


@pytest.mark.parametrize("explainer", LAYERED)
def test_layers_of_an_exported_program(explainer):
    program = torch.export.export(sequential(), (IMAGES,))
    for model, layer in ((program.module(), "0"), (program.module(), "1")):
        with pytest.raises(LookupError, match=r"exported program.*torch\.export\.unflatten"):
            explainer(model, layer)(IMAGES)
    with pytest.raises(TypeError, match=r"torch\.nn\.Module, got ExportedProgram"):
        explainer(program, "0")


@pytest.mark.parametrize("explainer", [camlens.Saliency, camlens.GuidedBackprop, camlens.Deconvnet])
def test_image_gradients_of_an_exported_program(explainer):
    expected = explainer(sequential())(IMAGES, targets="all").gradients
    model = torch.export.export(sequential(), (IMAGES,)).module()
    assert expected.any()
    assert_close(explainer(model)(IMAGES, targets="all").gradients, expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*_register_pytree_node")
@pytest.mark.parametrize("explainer", [camlens.GradCAM, camlens.EigenCAM, camlens.GuidedGradCAM])
def test_layers_of_unflattened_and_traced_programs(explainer):
    expected = explainer(sequential(), "2")(IMAGES, targets="all").raw
    assert expected.any()
    unflattened = torch.export.unflatten(torch.export.export(sequential(), (IMAGES,))).eval()
    for model in (unflattened, torch.fx.symbolic_trace(sequential())):
        assert_close(explainer(model, "2")(IMAGES, targets="all").raw, expected)


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm2d(4), nn.Dropout2d(0.5)])
def test_a_program_exported_in_training_mode(layer):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), layer, nn.Flatten(), nn.Linear(144, 3))
    exported = torch.export.export(model.train(), (IMAGES,)).module()
    with pytest.raises(ValueError, match=r"exported in training mode .*before torch\.export"):
        camlens.Saliency(exported)(IMAGES)
    exported = torch.export.export(model.eval(), (IMAGES,)).module()
    expected = camlens.Saliency(model)(IMAGES, targets="all").raw
    assert_close(camlens.Saliency(exported)(IMAGES, targets="all").raw, expected)


quantization = pytest.mark.filterwarnings(
    "ignore:torch.ao.quantization is deprecated",
    "ignore:torch.quantize_per_tensor",
    "ignore:.*reduce_range",
    "ignore:quantized::linear_dynamic",
    "ignore:.*autograd kernel was not registered",
)


def quantize(how):
    quantization = pytest.importorskip("torch.ao.quantization")
    model = sequential()
    if how == "dynamic":
        return quantization.quantize_dynamic(model, {nn.Linear}).eval()
    model = nn.Sequential(
        quantization.QuantStub(), model[0], nn.ReLU(), quantization.DeQuantStub(), *model[4:]
    ).eval()
    model.qconfig = quantization.get_default_qconfig("fbgemm")
    model[5].qconfig = None
    prepared = quantization.prepare(model)
    prepared(IMAGES)
    return quantization.convert(prepared).eval()


@quantization
@pytest.mark.parametrize("explainer", [camlens.GradCAM, camlens.Saliency])
@pytest.mark.parametrize("targets", [1, "all"])
def test_dynamically_quantized_models(explainer, targets):
    model = quantize("dynamic")
    with pytest.raises(ValueError, match=r"\['5'\] are quantized, so gradients cannot pass"):
        made(explainer, model, "2")(IMAGES, targets=targets)
    eigen = camlens.EigenCAM(model, "2")(IMAGES).raw  # needs no gradient
    assert_close(eigen, camlens.EigenCAM(sequential(), "2")(IMAGES).raw)


@quantization
def test_statically_quantized_models():
    model = quantize("static")
    for explainer in (camlens.GradCAM, camlens.EigenCAM):
        with pytest.raises(TypeError, match=r"layer '1' gives a quantized tensor"):
            explainer(model, "1")(IMAGES)
    with pytest.raises(ValueError, match=r"layers \['0', '1', '3'\] are quantized"):
        camlens.Saliency(model)(IMAGES)
    assert camlens.GradCAM(model, "3")(IMAGES, targets="all").evidence.any()  # behind them


def test_a_misspelt_option(explainer_class):
    model = Small().eval()
    with pytest.raises(TypeError, match=r"unknown option 'target'.*targets=\.\.\."):
        made(explainer_class, model)(IMAGES, target=1)


def test_a_layout_by_name():
    with pytest.raises(TypeError, match="expected layout as a function"):
        camlens.GradCAM(Small().eval(), "conv2", layout="nchw")


def test_an_unknown_registration():
    with pytest.raises(ValueError, match='expected registration "stretched" or "measured"'):
        camlens.GradCAM(Small().eval(), "conv2", registration="centred")
    with pytest.raises(ValueError, match="the map of a single layer, got 2 layers"):
        camlens.GradCAM(Small().eval(), ["conv1", "conv2"], registration="measured")


def test_a_tensor_kept_from_inference_mode():
    class Caching(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.kept = Small(), None

        def forward(self, x):
            if self.kept is None:
                self.kept = torch.ones(5) * 2
            return self.net(x) * self.kept

    model = Caching().eval()
    with torch.inference_mode():
        model(IMAGES)
    with pytest.raises(ValueError, match=r"a tensor made in torch\.inference_mode"):
        camlens.GradCAM(model, "net.conv2")(IMAGES)
