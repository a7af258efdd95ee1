"""The result: lazy heatmaps, moving, one file without pickle, whole or not at all."""

import os
import pathlib

import pytest
import torch
from torch.testing import assert_close

from camlens import Explanation


@pytest.fixture
def explanation():
    raw = torch.rand(2, 3, 4, 5)
    raw[1, 2] = 0
    return Explanation(
        raw=raw,
        scores=torch.rand(2, 3),
        targets=torch.randint(0, 7, (2, 3)),
        size=(8, 10),
        grid=(4, 5),
        layers=("block1", "block2"),
        method="GradCAM",
        gradients=torch.randn(2, 3, 1, 8, 10),
    )


def test_heatmaps_are_the_resized_maps_over_their_maximum(explanation):
    resized = torch.nn.functional.interpolate(explanation.raw, (8, 10), mode="bilinear")
    assert_close(explanation.heatmaps[0, 0], resized[0, 0] / resized[0, 0].max())
    assert explanation.heatmaps[1, 2].count_nonzero() == 0
    assert explanation.heatmaps.amax((-2, -1)).tolist() == [[1, 1, 1], [1, 1, 0]]
    assert explanation.evidence.tolist() == [[True, True, True], [True, True, False]]


def test_heatmaps_are_computed_once_and_only_on_request(explanation):
    assert "heatmaps" not in vars(explanation)
    assert explanation.heatmaps is explanation.heatmaps


def test_it_is_frozen(explanation):
    with pytest.raises(AttributeError):
        explanation.method = "other"


def test_save_and_load(explanation, tmp_path):
    explanation.save(tmp_path / "e.safetensors")
    loaded = Explanation.load(tmp_path / "e.safetensors")
    for name in ("raw", "scores", "targets", "gradients", "heatmaps"):
        assert torch.equal(getattr(loaded, name), getattr(explanation, name))
    for name in ("size", "grid", "layers", "method"):
        assert getattr(loaded, name) == getattr(explanation, name)
    assert os.listdir(tmp_path) == ["e.safetensors"]  # noqa: PTH208


def test_a_failed_save_leaves_the_old_file(explanation, tmp_path, monkeypatch):
    path = tmp_path / "e.safetensors"
    explanation.save(path)
    before = path.read_bytes()

    def full(self, content):
        with self.open("wb") as file:
            file.write(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        explanation.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["e.safetensors"]


def test_load_what_is_not_an_explanation(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(FileNotFoundError):
        Explanation.load(tmp_path / "missing")
    (tmp_path / "text").write_text("no tensors here, but long enough to look for a header")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        Explanation.load(tmp_path / "text")
    save_file({"raw": torch.zeros(1)}, tmp_path / "weights")
    with pytest.raises(ValueError, match=r"not written by Explanation\.save"):
        Explanation.load(tmp_path / "weights")


def test_a_truncated_file(explanation, tmp_path):
    path = tmp_path / "e.safetensors"
    explanation.save(path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        Explanation.load(path)


def test_moves_between_devices(explanation, device):
    there = explanation.to(device)
    assert {t.device.type for t in (there.raw, there.targets, there.gradients)} == {device.type}
    assert there.cpu().raw.device.type == "cpu"
    assert explanation.to("meta").heatmaps.shape == (2, 3, 8, 10)


def test_repr_says_what_is_explained(explanation):
    text = repr(explanation)
    assert "GradCAM at block1, block2: 2 images of (8, 10), 3 targets each, grid (4, 5)" in text
