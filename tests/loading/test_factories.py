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
    with pytest.raises(TypeError, match=r"to return a torch\.nn\.Module, got int"):
        loading.load_model(f"{factory}:number")


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
