"""Layers by name, wrappers, and the errors that name the remedy."""

import pytest
import torch
from torch import nn

from camlens import model as models


def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3)))


@pytest.mark.slow
def test_unwrap_takes_every_wrapper_off():
    inner = net()
    assert models.unwrap(nn.DataParallel(torch.compile(inner))) is inner


def test_names_are_free_of_compile_wrappers():
    model = net()
    inner = model[1]
    model[1] = torch.compile(inner)
    assert list(models.named(model)) == ["0", "1", "1.0", "1.1"]
    assert models.resolve(model, model[1]) == "1"
    assert models.resolve(model, "1._orig_mod.1") == "1.1"


def test_names_of_a_wrapped_model_are_understood():
    assert models.resolve(net(), "module.1.0") == "1.0"


def test_every_name_of_a_module_used_twice():
    relu = nn.ReLU()
    model = nn.ModuleDict({"first": relu, "second": nn.Sequential(relu)})
    assert models.resolve(model, "second.0") == "first"


def test_unknown_name_lists_near_ones():
    model = nn.ModuleDict({"features": net(), "classifier": nn.Linear(1, 1)})
    with pytest.raises(LookupError, match=r"no layer 'feature\.0'; similar names: features\.0"):
        models.resolve(model, "feature.0")


def test_foreign_module():
    with pytest.raises(LookupError, match="not a part of Sequential"):
        models.resolve(net(), nn.ReLU())


def test_wrong_type():
    with pytest.raises(TypeError, match="dotted name or module, got int"):
        models.resolve(net(), 3)


def test_several_layers_once_each():
    model = net()
    assert models.resolve_all(model, ["0", model[0], "1"]) == ("0", "1")
    assert models.resolve_all(model, model[1]) == ("1",)
    with pytest.raises(ValueError, match="at least one layer"):
        models.resolve_all(model, [])


def test_the_module_of_a_name():
    model = net()
    inner = model[1]
    model[1] = torch.compile(inner)
    assert models.layer(model, "1") is inner
    assert models.layer(model, "1._orig_mod.0") is inner[0]


@pytest.mark.parametrize(
    ("shape", "accepted"),
    [
        ((2, 3, 8), True),
        ((2, 3, 8, 9), True),
        ((2, 3, 4, 5, 6), True),
        ((3, 8), False),
        ((1, 2, 3, 4, 5, 6), False),
        ((0, 3, 8, 8), False),
        ((2, 3, 0, 8), False),
    ],
)
def test_batches_of_signals_images_and_volumes(shape, accepted):
    images = torch.rand(shape)
    if accepted:
        assert models.check_images(images) is images
        return
    with pytest.raises(
        ValueError, match=r"expected images as \(N, C, L\), \(N, C, H, W\), \(N, C, D"
    ):
        models.check_images(images)


def test_three_dimensions_are_a_signal_or_an_image_without_its_batch():
    images = torch.rand(3, 8, 8)
    models.check_batched(nn.Sequential(nn.Conv1d(8, 4, 3)), images)
    models.check_batched(nn.Sequential(nn.Linear(8, 4)), images)
    with pytest.raises(ValueError, match=r"images\.unsqueeze\(0\)"):
        models.check_batched(net(), images)


def test_modes_name_the_modules_that_train():
    model = net().eval()
    models.check_mode(model)
    model[1].train()
    with pytest.raises(ValueError, match=r"training mode \(1, 1\.0, 1\.1\): .*create_graph=True"):
        models.check_mode(model)


def test_an_option_that_the_model_has_as_an_input():
    class Detector(nn.Module):
        def forward(self, images, target=None):
            return images

    models.check_keywords(Detector(), ["target"])
    with pytest.raises(TypeError, match=r"unknown option 'target'.*targets=\.\.\."):
        models.check_keywords(net(), ["target"])


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_a_model_is_checked_without_its_wrappers(wrap):
    inner = net()
    assert models.check_model(wrap(inner)) is inner
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module, got str"):
        models.check_model("resnet18")
