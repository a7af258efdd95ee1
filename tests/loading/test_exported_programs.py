"""Exported programs: the same maps as the model's own; none is loaded that is not trusted."""

import pathlib
import zipfile

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import camlens
from camlens.loading import exported_programs

from ..nets import Small

REFUSED = r"\.pt2 is an exported program, .* can run any code .*--unsafe-pickle.*safetensors"


class Features(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(inplace=True)),
        )
        self.head = nn.Linear(8, 4)

    def forward(self, images):
        return self.head(self.features(images).mean((-2, -1)))


def exported(model, path, batch=None):
    free = ({0: torch.export.Dim("batch", min=1, max=64)},) if batch is None else None
    images = torch.rand(batch or 2, 3, 16, 16)
    torch.export.save(torch.export.export(model, (images,), dynamic_shapes=free), path)
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    net = Features().eval()
    return net, exported(net, tmp_path_factory.mktemp("programs") / "net.pt2")


def test_maps_equal_those_of_the_model(saved):
    net, path = saved
    model, shape = exported_programs.load_program(path, trusted_pickle=True)
    assert shape == (0, 3, 16, 16)
    assert not any(part.training for part in model.modules())
    images = torch.rand(3, 3, 16, 16)
    for layer in ("features.1", "features.4"):
        found = camlens.GradCAM(model, layer)(images, targets="all")
        assert torch.equal(found.raw, camlens.GradCAM(net, layer)(images, targets="all").raw)
    assert camlens.GradCAM(model)(images).layers == ("features",)
    plain = camlens.Saliency(model)(images)
    assert torch.equal(plain.raw, camlens.Saliency(net)(images).raw)


def test_guided_backprop_equals_that_of_the_model(saved):
    # An exported graph calls the operators below all spellings of a ReLU.
    net, path = saved
    model, _ = exported_programs.load_program(path, trusted_pickle=True)
    images = torch.rand(2, 3, 16, 16)
    guided = camlens.GuidedBackprop(model)(images, targets=1)
    assert_close(guided.gradients, camlens.GuidedBackprop(net)(images, targets=1).gradients)


def test_a_fixed_batch_is_told(tmp_path):
    net = Small("functional").eval()
    path = exported(net, tmp_path / "net.pt2", batch=1)
    model, shape = exported_programs.load_program(path, trusted_pickle=True)
    assert shape == (1, 3, 16, 16)
    images = torch.rand(1, 3, 16, 16)
    found = camlens.GradCAM(model, "conv2")(images)
    assert torch.allclose(found.raw, camlens.GradCAM(net, "conv2")(images).raw, atol=1e-6)


class Sly:
    """What runs code when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return pathlib.Path.touch, (self.mark,)


def with_entries(path, target, change):
    """Copy an archive, with what ``change(name, content)`` gives for each entry."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            for entry, content in change(name, old.read(name)):
                new.writestr(entry, content)
    return target


def sly_sample(mark, folder):
    torch.save((((Sly(mark),), {}),), folder / "sly.pt")
    content = (folder / "sly.pt").read_bytes()
    return lambda name, old: [(name, content if "sample_inputs" in name else old)]


def sly_expression(mark, _):
    code = f"exec(\\\"open('{mark}', 'w')\\\")".encode()

    def change(name, old):
        start = old.find(b'"expr_str": "')
        if not name.endswith("models/model.json") or start < 0:
            return [(name, old)]
        start += len(b'"expr_str": "')
        return [(name, old[:start] + code + old[old.index(b'", "hint"', start) :])]

    return change


def sly_expression_elsewhere(mark, folder):
    # torch takes any name below models/ for a program, not only one that ends in .json.
    change = sly_expression(mark, folder)
    return lambda name, old: [
        (entry.replace("model.json", "model.jsoN"), content) for entry, content in change(name, old)
    ]


@pytest.mark.parametrize("make", [sly_sample, sly_expression, sly_expression_elsewhere])
def test_code_in_a_program_does_not_run_unless_it_is_trusted(saved, tmp_path, make):
    mark = tmp_path / "ran"
    path = with_entries(saved[1], tmp_path / "sly.pt2", make(mark, tmp_path))
    with pytest.raises(ValueError, match=REFUSED):
        exported_programs.load_program(path)
    assert not mark.exists()
    # Else the lines above would say nothing.
    with pytest.raises(ValueError, match="not a complete exported program"):
        exported_programs.load_program(path, trusted_pickle=True)
    assert mark.exists()


def test_no_program_is_loaded_without_consent(saved, monkeypatch):
    monkeypatch.setattr(torch.export, "load", lambda _: pytest.fail("it was loaded"))
    with pytest.raises(ValueError, match=REFUSED):
        exported_programs.load_program(saved[1])


def test_what_is_no_program(tmp_path, saved):
    (tmp_path / "text.pt2").write_text("no")
    (tmp_path / "half.pt2").write_bytes(saved[1].read_bytes()[:9000])
    with zipfile.ZipFile(tmp_path / "other.pt2", "w") as archive:
        archive.writestr("a/b.txt", "")
    for name in ("text", "half", "other"):
        with pytest.raises(ValueError, match=rf"{name}\.pt2 is not a complete exported program"):
            exported_programs.load_program(tmp_path / f"{name}.pt2", trusted_pickle=True)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*absent\.pt2"):
        exported_programs.load_program(tmp_path / "absent.pt2")
