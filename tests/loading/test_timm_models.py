"""timm's models: their preprocessing is timm's own, and what goes wrong says what to do."""

import pickle

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from camlens import loading

timm = pytest.importorskip("timm")
pytestmark = pytest.mark.filterwarnings("ignore")  # timm's own


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("size", [(300, 400), (400, 251)])
def test_preprocessing_is_timms(name, size):
    loaded = loading.load_model(f"timm:{name}", "none")
    assert loaded.preprocessing_known
    picture = torch.rand(3, *(s // 10 for s in size)).mul(255).byte()
    photograph = Image.fromarray(picture.permute(1, 2, 0).numpy()).resize(size[::-1])
    pixels = torch.tensor(list(photograph.getdata()), dtype=torch.uint8)
    given = pixels.view(*size, 3).permute(2, 0, 1)
    config = timm.data.resolve_model_data_config(loaded.model)
    expected = timm.data.create_transform(**config, is_training=False)(photograph)
    actual = loaded.preprocessing.values(given)
    assert actual.shape == expected.shape
    # Pillow rounds to whole grey levels between the two passes of a resize.
    assert (actual - expected).abs().max() < 0.06
    assert (actual - expected).abs().mean() < 0.006


def test_published_weights_have_class_names(monkeypatch):
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: create(name))
    loaded = loading.load_model("timm:resnet18")
    assert len(loaded.classes) == 1000
    assert loaded.classes[243] == "bull mastiff"


def test_published_weights_are_only_tensors(monkeypatch, tmp_path):
    torch.save({"conv1.weight": print}, tmp_path / "published.pth")

    def create(name, pretrained):
        torch.load(tmp_path / "published.pth", weights_only=False)

    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        loading.load_model("timm:resnet18")


@pytest.mark.slow
def test_a_file_of_weights_with_other_classes(tmp_path):
    model = timm.create_model("resnet18", num_classes=7)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    loaded = loading.load_model("timm:resnet18", str(tmp_path / "w.safetensors"))
    assert loaded.model.num_classes == 7
    assert torch.equal(loaded.model.fc.weight, model.fc.weight)
    assert not loaded.model.training


def test_without_a_network_it_says_what_to_do(monkeypatch):
    def offline(name, pretrained):
        raise FileNotFoundError("cannot find the requested files in the local cache")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(OSError, match=r"the weights of timm's resnet18 .*--weights FILE"):
        loading.load_model("timm:resnet18")


def test_unknown_names():
    with pytest.raises(LookupError, match="timm has no model 'resnet19'; did you mean resnet18"):
        loading.load_model("timm:resnet19", "none")
    with pytest.raises(LookupError, match="timm has no such weights: Invalid pretrained tag"):
        loading.load_model("timm:resnet18", "no_such_tag")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["squash", "border"])
@pytest.mark.parametrize("interpolation", ["bicubic", "lanczos"])
def test_other_crops_are_timms(monkeypatch, mode, interpolation):
    facts = {"input_size": (3, 48, 48), "crop_mode": mode, "interpolation": interpolation}
    facts |= {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_pct": 0.9}
    monkeypatch.setattr(timm.data, "resolve_model_data_config", lambda model: facts)
    how = loading.load_model("timm:resnet18", "none").preprocessing
    picture = torch.rand(1, 3, 8, 9).mul(255)
    picture = torch.nn.functional.interpolate(picture, (80, 111), mode="bilinear")[0].byte()
    image = Image.fromarray(picture.permute(1, 2, 0).numpy())
    expected = timm.data.create_transform(**facts, is_training=False)(image)
    assert (how.values(picture) - expected).abs().max() < 0.02
    if mode == "squash" and interpolation == "bicubic":
        # Stretched to 53 pixels, of which the middle 48 begin at the third.
        expected = (80 * 2 / 53, 111 * 2 / 53, 80 * 48 / 53, 111 * 48 / 53)
        assert how.box((80, 111)) == pytest.approx(expected)
    else:
        assert how.box((80, 111)) is None


def test_channels_that_no_picture_has(monkeypatch):
    facts = {"input_size": (4, 8, 8), "crop_mode": "center", "interpolation": "bicubic"}
    monkeypatch.setattr(timm.data, "resolve_model_data_config", lambda model: facts)
    with pytest.raises(ValueError, match="1 or 3 channels, got 4 of timm:resnet18"):
        loading.load_model("timm:resnet18", "none")
