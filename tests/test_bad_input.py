"""What a call cannot do is an error that says what was expected, what came, and the remedy."""

import pytest
import torch
from torch import nn

import camlens

from .nets import Small
from .test_taps import hooks

IMAGES = torch.rand(2, 3, 8, 8)


@pytest.fixture(
    params=[camlens.GradCAM, camlens.EigenCAM, camlens.GuidedBackprop, camlens.GuidedGradCAM]
)
def explainer_class(request):
    return request.param


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ([1, 2], TypeError, r"expected images as a \(N, C, H, W\) tensor, got list: convert with"),
        (IMAGES[0], ValueError, r"got \(3, 8, 8\): add the batch dimension with images.unsqueeze"),
        (IMAGES[:0], ValueError, r"no dimension empty, got \(0, 3, 8, 8\)"),
        (IMAGES[0, 0], ValueError, r"expected images as \(N, C, H, W\)"),
        (
            (IMAGES * 255).byte(),
            TypeError,
            r"got torch\.uint8: convert with images.float\(\) / 255",
        ),
    ],
)
def test_images(explainer_class, images, error, message):
    with pytest.raises(error, match=message):
        explainer_class(Small().eval())(images)


def test_no_model(explainer_class):
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module, got function"):
        explainer_class(lambda x: x)


def test_training_mode(explainer_class):
    model = Small()
    with pytest.raises(ValueError, match=r"in training mode \(the model itself, .*model\.eval\(\)"):
        explainer_class(model)(IMAGES)
    model.eval()
    model.norm2.train()
    with pytest.raises(ValueError, match=r"training mode \(norm2\)"):
        explainer_class(model)(IMAGES)


@pytest.mark.parametrize("explainer", [camlens.GradCAM, camlens.GuidedGradCAM])
def test_layers(explainer):
    model = Small().eval()
    with pytest.raises(LookupError, match="no layer 'conv3'; near names: conv"):
        explainer(model, "conv3")
    with pytest.raises(LookupError, match="not a part of Small"):
        explainer(model, nn.ReLU())
    with pytest.raises(LookupError, match=r"\['act6'\] did not run"):
        explainer(model, "act6")(IMAGES)
    with pytest.raises(ValueError, match=r"gives \(2, 5\) for images of \(8, 8\)"):
        explainer(model, "head")(IMAGES)
    assert hooks(model) == 0


def test_a_single_cell_says_nothing():
    model = nn.Sequential(nn.Conv2d(3, 4, 8), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2)).eval()
    with pytest.raises(ValueError, match="a single cell says nothing about where"):
        camlens.GradCAM(model, "1")(IMAGES)


@pytest.mark.parametrize("targets", [5, [0, -1]])
def test_targets_out_of_range(explainer_class, targets):
    with pytest.raises(ValueError, match="expected classes 0 to 4, got"):
        explainer_class(Small().eval())(IMAGES, targets=targets)


def test_scores_that_are_not_finite(explainer_class):
    images = IMAGES.clone()
    images[1, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"scores of the images \[1\] are not finite"):
        explainer_class(
            Small().eval(), *(["conv2"] if explainer_class != camlens.GuidedBackprop else [])
        )(images)


def test_scores_for_another_number_of_images(explainer_class):
    with pytest.raises(ValueError, match="expected one row of scores for each of 2 images"):
        explainer_class(Small().eval())(IMAGES, targets=lambda out: out[:1, 0])


def test_scores_that_do_not_depend_on_the_layer():
    model = Small().eval()
    with pytest.raises(ValueError, match=r"do not depend on \['conv2'\]"):
        camlens.GradCAM(model, "conv2")(IMAGES, targets=lambda out: torch.ones_like(out[:, 0]))
    with pytest.raises(ValueError, match=r"do not depend on \['the images'\]"):
        camlens.InputGradient(model)(IMAGES, targets=lambda out: torch.ones_like(out[:, 0]))
    assert hooks(model) == 0


def test_guided_without_a_relu_and_with_another_rectifier():
    smooth = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(144, 2)).eval()
    leaky = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.LeakyReLU(), nn.Flatten(), nn.Linear(144, 2)
    ).eval()
    for explainer in (camlens.GuidedBackprop, camlens.Deconvnet, camlens.GuidedGradCAM):
        with pytest.raises(ValueError, match="no ReLU ran"):
            explainer(smooth)(IMAGES)
        with pytest.raises(ValueError, match=r"also uses leaky_relu\. Use camlens\.InputGradient"):
            explainer(leaky)(IMAGES)
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
        explainer_class(model)(torch.rand(2, 4, 8, 8))
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


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_scripted_layers():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
    model[1] = torch.jit.script(model[1])
    with pytest.raises(ValueError, match=r"\['1'\] are TorchScript modules, which take no hooks"):
        camlens.GradCAM(model, "1")(IMAGES)
    assert [layer.name for layer in camlens.find_layers(model, IMAGES)] == ["0"]
    assert camlens.GradCAM(model)(IMAGES).layers == ("0",)


def test_a_misspelt_option(explainer_class):
    model = Small().eval()
    with pytest.raises(TypeError, match=r"unknown option 'target'.*targets=\.\.\."):
        explainer_class(model)(IMAGES, target=1)


def test_a_layout_by_name():
    with pytest.raises(TypeError, match="expected layout as a function"):
        camlens.GradCAM(Small().eval(), "conv2", layout="nchw")


def test_the_family_is_no_method():
    with pytest.raises(TypeError, match="use one, such as GradCAM"):
        camlens.CAM(Small().eval(), "conv2")


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


def test_outputs_that_hold_text():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Small()

        def forward(self, x):
            return {"logits": self.net(x), "name": "cat"}

    explanation = camlens.GradCAM(Named().eval())(IMAGES, targets=lambda out: out["logits"][:, 0])
    assert explanation.layers == ("net.act",)
