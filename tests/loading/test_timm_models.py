"""timm's models: their preprocessing is timm's own, and what goes wrong says what to do."""

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from camlens import loading
from camlens.loading import timm_models

timm = pytest.importorskip("timm")
pytestmark = pytest.mark.filterwarnings("ignore")  # timm's own


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


def test_a_preprocessing_that_is_unknown_is_refused(monkeypatch):
    facts = {"input_size": (3, 8, 8), "crop_mode": "squash", "interpolation": "bicubic"}
    monkeypatch.setattr(timm.data, "resolve_model_data_config", lambda model: facts)
    with pytest.raises(ValueError, match="got 3 channels, 'squash' and 'bicubic'"):
        timm_models.load_timm("resnet18", "none", trusted_pickle=False)
