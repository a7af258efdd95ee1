"""Models from functions of yours: where they are looked for, and what goes wrong."""

import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from camlens import loading
from camlens.loading import Preprocessing
from camlens.loading.factories import make

FACTORY = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

def broken():
    raise KeyError("setting")

def number():
    return 3

def dark(image):
    from torchvision.transforms.functional import to_tensor
    return to_tensor(image.resize((8, 6)))[:1] * 0.1

def prepared():
    return net(), dark

def named():
    return [net(), None, ("a", "b", "c", "d")]

def both():
    from torchvision import transforms as t
    steps = [t.Resize(12), t.CenterCrop(8), t.Grayscale(), t.ToTensor(), t.Normalize(0.5, 0.5)]
    return net(), t.Compose(steps), ["a", "b", "c", "d"]

def own():
    from camlens.loading import Preprocessing
    return net(), Preprocessing(size=(8, 8), channels=1)

def swapped():
    return dark, net()

def no_transform():
    return net(), 224

def no_names():
    return net(), dark, "abcd"

def too_many():
    return net(), dark, ["a"], 4

def batches():
    return net(), lambda image: dark(image)[None]

needs_nothing = net()
"""


@pytest.fixture
def factory(tmp_path, monkeypatch):
    """The name of a module in the current folder."""
    name = f"factory_of_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    yield name
    sys.modules.pop(name, None)


def test_a_function_in_the_current_folder(factory, tmp_path):
    before = list(sys.path)
    found = loading.load_model(f"{factory}:net")
    assert sys.path == before
    assert not found.model.training
    assert found.preprocessing == Preprocessing(channels=1)
    state = {name: torch.ones_like(value) for name, value in found.model.state_dict().items()}
    save_file(state, tmp_path / "ones.safetensors")
    found = loading.load_model(f"{factory}:net", "ones.safetensors")
    assert torch.equal(found.model[0].weight, torch.ones(4, 1, 3, 3))
    assert isinstance(loading.load_model(f"{factory}:needs_nothing").model, nn.Sequential)


def test_functions_that_give_no_model(factory):
    with pytest.raises(ValueError, match=rf"{factory}:broken\(\) failed with KeyError: 'setting'"):
        loading.load_model(f"{factory}:broken")
    message = r"to return a torch\.nn\.Module, \(module, transform\) or .*, got int"
    with pytest.raises(TypeError, match=message):
        loading.load_model(f"{factory}:number")


def test_a_function_that_returns_a_transform(factory):
    found = loading.load_model(f"{factory}:prepared")
    assert found.preprocessing_known
    assert found.classes is None
    picture = torch.full((3, 30, 40), 255, dtype=torch.uint8)
    values, shown = found.preprocessing(picture)
    assert torch.equal(values, torch.full((1, 6, 8), 0.1))
    assert torch.equal(shown, torch.full((3, 6, 8), 26, dtype=torch.uint8))
    assert (found.preprocessing.size, found.preprocessing.box((30, 40))) == ((6, 8), None)
    assert found.preprocessing.channels == 1


def test_a_function_that_returns_classes(factory):
    found = loading.load_model(f"{factory}:named")
    assert found.classes == ("a", "b", "c", "d")
    assert not found.preprocessing_known
    found = loading.load_model(f"{factory}:both")
    assert found.classes == ("a", "b", "c", "d")
    assert found.preprocessing.steps == Preprocessing(
        size=(8, 8), resize=(12, 12), channels=1, mean=(0.5,), std=(0.5,)
    )
    found = loading.load_model(f"{factory}:both", classes=list("wxyz"))
    assert found.classes == ("w", "x", "y", "z")


def test_a_function_that_returns_a_preprocessing(factory):
    found = loading.load_model(f"{factory}:own")
    assert found.preprocessing == Preprocessing(size=(8, 8), channels=1)
    assert found.preprocessing_known


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("swapped", TypeError, r"to return a .* got \(function, Sequential\)"),
        ("too_many", TypeError, r"to return a .* got \(Sequential, function, list, int\)"),
        (
            "no_transform",
            TypeError,
            r"second value that \S+\(\) returns as a transform, .* got int",
        ),
        ("no_names", TypeError, r"third value that \S+\(\) returns as a list of .* got str"),
        ("batches", ValueError, r"to return \(C, H, W\) .*, got \(1, 1, 6, 8\): leave the batch"),
    ],
)
def test_functions_that_return_something_else(factory, name, error, message):
    with pytest.raises(error, match=f"{factory}:{name}.*{message}|{message}") as caught:
        loading.load_model(f"{factory}:{name}")
    assert f"{factory}:{name}" in str(caught.value)


def test_a_module_that_lacks_something(tmp_path, monkeypatch):
    (tmp_path / "lacking_module.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImportError, match="a_package_that_is_not_there"):
        loading.load_model("lacking_module:net")


def test_a_function_that_prints_or_exits(tmp_path, monkeypatch, capsys):
    (tmp_path / "loud.py").write_text(
        "import sys\nfrom torch import nn\nprint('importing')\n"
        "def talks():\n    print('loading')\n    return nn.Identity()\n"
        "def leaves():\n    sys.exit(0)\n"
    )
    (tmp_path / "leaver.py").write_text("import sys\nsys.exit(3)\n")
    monkeypatch.chdir(tmp_path)
    make("loud:talks")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "importing\nloading\n")
    with pytest.raises(ValueError, match=r"loud:leaves\(\) failed with SystemExit: 0"):
        make("loud:leaves")
    with pytest.raises(ValueError, match=r"importing leaver called sys.exit\(3\)"):
        make("leaver:make")
