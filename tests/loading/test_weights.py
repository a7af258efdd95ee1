"""State dicts from files: what fits, what does not, and what must not run."""

import os
import pathlib
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from camlens.loading import weights


class Sly:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return pathlib.Path.touch, (self.mark,)


def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


@pytest.mark.parametrize("kind", ["safetensors", "pth", "nested", "compiled", "parallel"])
def test_every_way_a_state_is_saved(tmp_path, kind):
    state = net().state_dict()
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pth")
    prefix = {"compiled": "_orig_mod.", "parallel": "module."}.get(kind, "")
    saved = {prefix + name: value for name, value in state.items()}
    if kind == "safetensors":
        save_file(saved, path)
    else:
        torch.save({"state_dict": saved, "epoch": 3} if kind == "nested" else saved, path)
    model = net()
    weights.fill(model, weights.read(path), "a")
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_pickle_runs_only_if_trusted(tmp_path):
    mark, path = tmp_path / "ran", tmp_path / "sly.pth"
    torch.save({"a": torch.zeros(1), "b": Sly(mark)}, path)
    with pytest.raises(ValueError, match=r"sly\.pth is damaged, or a pickle .*--unsafe-pickle"):
        weights.read(path)
    assert not mark.exists()
    with pytest.raises(ValueError, match="to contain a state dict"):
        weights.read(path, trusted_pickle=True)
    assert mark.exists()


@pytest.mark.parametrize("value", [None, "0"])
def test_the_setting_of_tensors_only_is_restored(tmp_path, monkeypatch, value):
    monkeypatch.delenv(weights.ONLY_WEIGHTS, raising=False)
    if value is not None:
        monkeypatch.setenv(weights.ONLY_WEIGHTS, value)
    torch.save(Sly(tmp_path / "ran"), tmp_path / "sly.pth")
    with weights.tensors_only(), pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "sly.pth", weights_only=False)
    assert not (tmp_path / "ran").exists()
    assert os.environ.get(weights.ONLY_WEIGHTS) == value


def test_a_pickled_module_gives_its_state_if_trusted(tmp_path):
    model = net()
    torch.save(model, tmp_path / "a.pt")
    state = weights.read(tmp_path / "a.pt", trusted_pickle=True)
    assert torch.equal(state["0.weight"], model[0].weight)


def test_what_is_no_file_of_weights(tmp_path):
    save_file(net().state_dict(), tmp_path / "half.safetensors")
    content = (tmp_path / "half.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(content[:200])
    torch.save(net().state_dict(), tmp_path / "half.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "half.pth").read_bytes()[:500])
    (tmp_path / "a.txt").touch()
    (tmp_path / "empty.pt").touch()
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    for name, message in (
        ("half.safetensors", "is not a complete safetensors file .*get a complete copy"),
        ("half.pth", "is not a complete file of torch.save"),
        ("empty.pt", "is not a complete file of torch.save"),
        ("list.pt", "to contain a state dict .*got list"),
        ("a.txt", r"expected weights as \.safetensors or"),
    ):
        with pytest.raises(ValueError, match=message):
            weights.read(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*absent"):
        weights.read(tmp_path / "absent.pth")


def test_what_does_not_fit_is_named():
    state = net().state_dict()
    state["head.weight"] = state.pop("3.weight")
    state["0.bias"] = torch.zeros(5)
    message = (
        r"lacks: 3\.weight; also has: head\.weight; other shapes: 0\.bias is \(5,\) instead of "
        r"\(4,\)"
    )
    with pytest.raises(ValueError, match=rf"w\.pth does not fit Sequential; the file {message}"):
        weights.fill(net(), state, "w.pth")


def test_old_files_without_batch_counts_fit():
    state = {k: v for k, v in net().state_dict().items() if "num_batches" not in k}
    weights.fill(net(), state, "old")


def test_classes_of():
    wanted = {"conv.weight": torch.zeros(8, 3), "fc.weight": torch.zeros(10, 8)}
    same = {name: value.clone() for name, value in wanted.items()}
    assert weights.classes_of(same, wanted, 10) == 10
    assert weights.classes_of(same | {"fc.weight": torch.zeros(7, 8)}, wanted, 10) == 7
    # Another network altogether: let `fill` say what differs.
    assert weights.classes_of(same | {"fc.weight": torch.zeros(7, 9)}, wanted, 10) == 10
