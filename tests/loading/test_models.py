"""Models from a few words; a wrong word is answered with the near ones."""

import subprocess
import sys
import urllib.error
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import ResNet18_Weights, VGG19_Weights, resnet18

from camlens import loading
from camlens.loading import Preprocessing


def test_torchvision_without_weights():
    found = loading.load_model("torchvision:squeezenet1_1", "none")
    assert type(found.model).__name__ == "SqueezeNet"
    assert not any(part.training for part in found.model.modules())
    assert found.classes is None
    assert found.preprocessing == Preprocessing(
        size=(224, 224),
        resize=(256, 256),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


@pytest.mark.slow
def test_torchvision_with_a_file_of_other_classes(tmp_path):
    trained = resnet18(num_classes=7)
    save_file(trained.state_dict(), tmp_path / "a.safetensors")
    found = loading.load_model("torchvision:resnet18", str(tmp_path / "a.safetensors"))
    assert torch.equal(found.model.fc.weight, trained.fc.weight)
    assert not found.model.training
    with pytest.raises(ValueError, match=r"a\.safetensors does not fit SqueezeNet"):
        loading.load_model("torchvision:squeezenet1_1", str(tmp_path / "a.safetensors"))


@pytest.mark.slow
def test_a_file_of_weights_gets_imagenets_names_on_request(tmp_path):
    path = str(tmp_path / "a.safetensors")
    save_file(resnet18().state_dict(), path)
    assert loading.load_model("torchvision:resnet18", path).classes is None
    named = loading.load_model("torchvision:resnet18", path, classes="imagenet")
    assert named.classes == tuple(ResNet18_Weights.DEFAULT.meta["categories"])
    with pytest.raises(ValueError, match="list of names or \"imagenet\", got 'ImageNet'"):
        loading.load_model("torchvision:resnet18", path, classes="ImageNet")


@pytest.mark.parametrize("weights", [None, "default", "IMAGENET1K_V1"])
def test_published_weights_bring_preprocessing_and_classes(tmp_path, monkeypatch, weights):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    torch.manual_seed(1)
    state = resnet18().state_dict()
    monkeypatch.setattr(ResNet18_Weights.DEFAULT, "get_state_dict", lambda *_, **__: state, False)
    found = loading.load_model("torchvision:resnet18", weights)
    assert torch.equal(found.model.fc.weight, state["fc.weight"])
    assert len(found.classes) == 1000
    assert found.classes[652] == "military uniform"
    assert found.preprocessing.size == (224, 224)
    assert found.preprocessing.mean == (0.485, 0.456, 0.406)


@pytest.mark.slow
def test_no_network(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    place = tmp_path / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth"
    message = rf"no network.*download https://\S*{place.name} .* put the file at {place}, or pass"
    with pytest.raises(OSError, match=message):
        loading.load_model("torchvision:vgg19")
    assert VGG19_Weights.DEFAULT.url.endswith(place.name)


@pytest.mark.slow
def test_a_pickle_in_the_cache_does_not_run(tmp_path, monkeypatch):
    class Sly:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / ResNet18_Weights.DEFAULT.url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.save({"fc.weight": Sly()}, file)
    with pytest.raises(ValueError, match=rf"{file} is damaged, or contains more than tensors"):
        loading.load_model("torchvision:resnet18")
    assert not (tmp_path / "ran").exists()
    torch.save(resnet18().state_dict(), file)
    assert len(loading.load_model("torchvision:resnet18").classes) == 1000


@pytest.mark.parametrize(
    ("spec", "weights", "message"),
    [
        ("torchvision:vgg91", None, r"no classification model 'vgg91'; did you mean vgg"),
        ("torchvision:fcn_resnet50", None, "it is for another task: wrap it in a module"),
        ("torchvision:vgg11", "IMAGENET1K_V9", "did you mean IMAGENET1K_V1.*expected a file, none"),
        ("vgg19", None, r"got 'vgg19'; did you mean torchvision:vgg19\?"),
        ("a/b", None, "expected a model as torchvision:NAME"),
        ("no_such_module_here:net", None, "there is no module 'no_such_module_here' in /"),
        ("torch.nn.no_such:net", None, "there is no module 'torch.nn.no_such' in /"),
        ("torch.nn:Identiti", None, r"no function 'Identiti'; did you mean Identity"),
        (
            "torch.nn:Identity",
            "default",
            "only models of torchvision, timm, hf and open_clip "
            "have named weights, got 'default' for torch.nn:Identity",
        ),
    ],
)
def test_wrong_names(spec, weights, message):
    with pytest.raises(LookupError, match=message):
        loading.load_model(spec, weights)


def test_an_exported_program_knows_its_size(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    program = torch.export.export(model.eval(), (torch.rand(1, 1, 10, 12),))
    torch.export.save(program, tmp_path / "net.pt2")
    with pytest.raises(ValueError, match=r"can run any code in it.*--unsafe-pickle"):
        loading.load_model(str(tmp_path / "net.pt2"))
    found = loading.load_model(str(tmp_path / "net.pt2"), trusted_pickle=True)
    assert found.preprocessing == Preprocessing(size=(10, 12), channels=1)
    assert found.batch == 1


def test_a_pickled_module_only_if_trusted(tmp_path):
    torch.save(nn.Sequential(nn.Conv2d(3, 2, 3)), tmp_path / "net.pt")
    path = str(tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"would have to be unpickled.*--unsafe-pickle"):
        loading.load_model(path)
    assert not loading.load_model(path, trusted_pickle=True).model.training
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(TypeError, match="to contain a module, got dict: pass a state dict as"):
        loading.load_model(path, trusted_pickle=True)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        loading.load_model(str(Path(path).with_name("absent.pt")))


def test_as_many_names_as_classes(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    state = resnet18().state_dict()
    monkeypatch.setattr(ResNet18_Weights.DEFAULT, "get_state_dict", lambda *_, **__: state, False)
    with pytest.raises(ValueError, match="1000 class names for torchvision:resnet18, got 2"):
        loading.load_model("torchvision:resnet18", classes=["cat", "dog"])
    names = [f"class {index}" for index in range(1000)]
    assert loading.load_model("torchvision:resnet18", classes=names).classes == tuple(names)


@pytest.mark.slow
def test_libraries_load_when_their_models_do():
    libraries = ("torchvision", "timm", "transformers", "open_clip")
    code = (
        "import sys, camlens.loading; camlens.loading.load_model('torch.nn:Identity'); "
        f"print([name for name in {libraries} if name in sys.modules])"
    )
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert got.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("library", "spec"),
    [
        ("torchvision.models", "torchvision:vgg11"),
        ("timm", "timm:resnet18"),
        ("transformers", "hf:a/b"),
        ("open_clip", "open_clip:ViT-B-32"),
    ],
)
def test_a_library_that_is_not_installed(monkeypatch, library, spec):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"{spec} needs {library[:4]}\w*: pip install"):
        loading.load_model(spec, classes=["cat"])
