"""Folders of image files: order, names, classes; what is damaged is a row with its reason."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from camlens import GradCAM
from camlens.dataset import Folder, RunOptions, Sample, explain_dataset
from camlens.dataset.items import content_of

from .made import net


def grey(picture):
    return picture.float().mean(dim=0, keepdim=True) / 255


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "photos"
    for place, name in enumerate(["dog/2.png", "cat/b/1.png", "cat/10.png", "0.png"]):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 16), (place * 40, 0, 0)).save(path)
    return root


def test_files_are_sorted_and_named_by_their_first_folder(folder):
    data = Folder(folder, grey)
    assert [data.name(i) for i in range(len(data))] == [
        *("0.png", "cat/10.png", "cat/b/1.png", "dog/2.png")
    ]
    assert data.classes == ["cat", "dog"]
    assert [data[i].label for i in range(4)] == [-1, 0, 0, 1]
    assert data[1].picture[:, 0, 0].tolist() == [80, 0, 0]
    assert data[1].image[0, 0, 0].item() == pytest.approx(80 / 3 / 255)


def test_another_file_is_another_data_set(folder, tmp_path):
    before = Folder(folder, grey).fingerprint()
    assert Folder(folder, grey).fingerprint() == before
    Image.new("L", (16, 16)).save(folder / "new.png")
    assert Folder(folder, grey).fingerprint() != before


def test_one_byte_in_the_middle_of_a_file_makes_another_data_set(folder):
    path = folder / "0.bmp"
    Image.new("L", (160, 160)).save(path)
    before, times = Folder(folder, grey).fingerprint(), path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] = 255
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert Folder(folder, grey).fingerprint() != before


def test_pipes_and_devices_have_no_content(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert content_of(tmp_path / "pipe.png") == b""  # and does not wait
    assert content_of(Path("/dev/zero")) == b""


class Shifted(Folder):
    """A user's subclass, with a value of its own."""

    def __init__(self, *arguments, shift):
        super().__init__(*arguments)
        self.shift = shift

    def __getitem__(self, index):
        return Sample(super().__getitem__(index).image - self.shift)


class Doubled(Shifted):
    def __getitem__(self, index):
        return Sample(super().__getitem__(index).image * 2)


def test_the_code_and_the_values_of_a_subclass_count(folder, tmp_path):
    found = [
        *(Shifted(folder, grey, shift=0.0), Shifted(folder, grey, shift=0.5)),
        *(Doubled(folder, grey, shift=0.0), Folder(folder, grey)),
    ]
    hashes = [data.fingerprint() for data in found]
    assert len(set(hashes)) == 4
    moved = folder.rename(tmp_path / "moved")
    assert Shifted(moved, grey, shift=0.0).fingerprint() == hashes[0]


def darker(picture):
    return grey(picture) / 2


def test_another_transform_is_another_data_set(folder):
    def fingerprint(transform, shown=None):
        return Folder(folder, transform, shown=shown).fingerprint()

    found = {
        fingerprint(grey),
        fingerprint(darker),
        fingerprint(grey, darker),
        fingerprint(grey, grey),
        fingerprint(Steps([nn.Hardtanh(0.0, 1.0)])),
        fingerprint(Steps([nn.Hardtanh(0.0, 2.0)])),
        fingerprint(Steps([Each(lambda picture: picture / 2)])),
        fingerprint(Steps([Each(lambda picture: picture / 3)])),
    }
    assert len(found) == 8
    assert fingerprint(Steps([Each(grey)])) == fingerprint(Steps([Each(grey)]))


class Steps:
    """As torchvision's Compose holds what it does."""

    def __init__(self, transforms):
        self.transforms = transforms


class Each:
    """As torchvision's Lambda."""

    def __init__(self, work):
        self.work = work


def test_a_picture_is_kept_where_it_has_the_images_size(folder):
    def half(picture):
        return picture[:, ::2, ::2]

    def transform(picture):
        return grey(half(picture))

    assert Folder(folder, transform)[0].picture is None
    assert Folder(folder, transform, shown=half)[0].picture.shape == (3, 8, 10)


def test_damaged_files_are_rows_with_their_reason(folder, tmp_path):
    (folder / "cat" / "11.png").write_bytes((folder / "cat" / "10.png").read_bytes()[:40])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "page.png").write_text("<html>not found</html>")
    explainer, data = GradCAM(net(), "1"), Folder(folder, grey)
    found = explain_dataset(
        explainer, data, tmp_path / "run", RunOptions(num_workers=1), progress=False
    )
    assert found.unreadable["name"].tolist() == ["cat/11.png", "empty.jpg", "page.png"]
    for name, reason in zip(found.unreadable["name"], found.unreadable["reason"], strict=True):
        assert reason.startswith(f"ValueError: {name} is ")
        assert str(folder) not in reason
    assert found.manifest["unreadable"] == 3
    assert found.images["height"].dropna().tolist() == [16] * 4
    first = Image.open(io.BytesIO(found.images["thumbnail"][1]))
    assert np.abs(np.asarray(first)[0, 0].astype(int) - [80, 0, 0]).max() <= 2  # it is a JPEG


def test_names_that_utf8_cannot_hold_are_escaped(folder, tmp_path):
    try:
        (folder / "caf\udce9.png").write_bytes((folder / "0.png").read_bytes())
        (folder / "bad\udcff.png").write_bytes(b"no image")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (folder / "<script>'\"\u202e.png").write_bytes((folder / "0.png").read_bytes())
    found = explain_dataset(
        GradCAM(net(), "1"), Folder(folder, grey), tmp_path / "run", progress=False
    )
    names = set(found.images["name"])
    assert {"caf\\udce9.png", "bad\\udcff.png", "<script>'\"\u202e.png"} <= names
    assert found.unreadable["name"].tolist() == ["bad\\udcff.png"]


def test_a_folder_that_is_none_or_has_no_images(tmp_path):
    with pytest.raises(NotADirectoryError, match="does not exist"):
        Folder(tmp_path / "none", grey)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match="there are no image files in"):
        Folder(tmp_path, grey)


def test_a_wrong_picture_is_refused(tmp_path):
    from camlens.dataset import Sample

    image = torch.rand(1, 16, 16)
    for name, picture in {"a": torch.zeros(3, 8, 8).byte(), "b": torch.zeros(3, 16, 16)}.items():
        with pytest.raises(ValueError, match=r"a picture as \(1 or 3, 16, 16\) of uint8"):
            explain_dataset(
                GradCAM(net(), "1"),
                [Sample(image, picture=picture)],
                tmp_path / name,
                progress=False,
            )
