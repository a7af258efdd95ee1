"""Exported programs: the same maps as the model's own, and no code that comes with the file."""

import os
import pathlib
import zipfile

import pytest
import torch
from torch import nn

import camlens
from camlens import programs, weights

from .nets import Small


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
    model, shape = programs.load(path)
    assert shape == (0, 3, 16, 16)
    assert not any(part.training for part in model.modules())
    images = torch.rand(3, 3, 16, 16)
    for layer in ("features.1", "features.4"):
        found = camlens.GradCAM(model, layer)(images, targets="all")
        assert torch.equal(found.raw, camlens.GradCAM(net, layer)(images, targets="all").raw)
    assert camlens.GradCAM(model)(images).layers == ("features",)
    plain = camlens.InputGradient(model)(images)
    assert torch.equal(plain.raw, camlens.InputGradient(net)(images).raw)


def test_guided_methods_say_that_they_see_no_relu(saved):
    # An exported graph calls the operators below all spellings that the rectifiers meet.
    model, _ = programs.load(saved[1])
    with pytest.raises(ValueError, match=r"no ReLU ran.*Use camlens\.InputGradient"):
        camlens.GuidedBackprop(model)(torch.rand(1, 3, 16, 16))


def test_a_fixed_batch_is_told(tmp_path):
    net = Small("functional").eval()
    model, shape = programs.load(exported(net, tmp_path / "net.pt2", batch=1))
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


def sly_library(_, __):
    return lambda name, old: [
        (name, old),
        *([("net/data/aotinductor/model/a.so", b"")] * name.endswith("archive_version")),
    ]


def sly_constant(_, __):
    return lambda name, old: [
        (name, old),
        *([("net/data/constants/opaque_obj_0", b"")] * name.endswith("archive_version")),
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (sly_sample, "a pickle that holds more than tensors"),
        (sly_expression, r"an expression that is no size \('exec"),
        (sly_library, r"compiled code or a pickled object \(net/data/aotinductor"),
        (sly_constant, r"compiled code or a pickled object \(net/data/constants/opaque_obj_0"),
    ],
)
def test_code_in_a_program_does_not_run(saved, tmp_path, make, message):
    mark = tmp_path / "ran"
    path = with_entries(saved[1], tmp_path / "sly.pt2", make(mark, tmp_path))
    with pytest.raises(ValueError, match=rf"sly\.pt2 holds {message}.*--unsafe-pickle"):
        programs.load(path)
    assert not mark.exists()


@pytest.mark.parametrize("make", [sly_sample, sly_expression])
def test_those_programs_would_run_code(saved, tmp_path, make):
    # Else the test above would say nothing.
    mark = tmp_path / "ran"
    path = with_entries(saved[1], tmp_path / "sly.pt2", make(mark, tmp_path))
    with pytest.raises(ValueError, match="no whole exported program"):
        programs.load(path, trusted_pickle=True)
    assert mark.exists()


def test_the_setting_is_restored(saved, monkeypatch):
    for value in (None, "0"):
        if value is not None:
            monkeypatch.setenv(weights.ONLY_WEIGHTS, value)
        programs.load(saved[1])
        assert os.environ.get(weights.ONLY_WEIGHTS) == value


def test_what_is_no_program(tmp_path, saved):
    (tmp_path / "text.pt2").write_text("no")
    (tmp_path / "half.pt2").write_bytes(saved[1].read_bytes()[:9000])
    with zipfile.ZipFile(tmp_path / "other.pt2", "w") as archive:
        archive.writestr("a/b.txt", "")
    for name in ("text", "half", "other"):
        with pytest.raises(ValueError, match=rf"{name}\.pt2 is no whole exported program"):
            programs.load(tmp_path / f"{name}.pt2")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*absent\.pt2"):
        programs.load(tmp_path / "absent.pt2")
