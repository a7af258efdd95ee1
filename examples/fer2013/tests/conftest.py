"""Fixtures of all tests: synthetic images, real ones, and narrow networks."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torchvision

sys.path.insert(0, str(Path(__file__).parent))

from made_up_faces import made_up_faces, write_csv
from narrow_base import narrow_base_network
from narrow_vgg import NarrowVGG

from fer2013.data.faces import Faces

pytest.register_assert_rewrite("run_folders")


@pytest.fixture(scope="session")
def csv_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "fer2013.csv"
    write_csv(made_up_faces(training=4, public=2, private=2), path)
    return path


@pytest.fixture(scope="session")
def real_faces(shared):
    """Return all real images of Training and PublicTest; reading them takes seconds."""
    with np.load(shared / "fer2013" / "fer2013_train_public.npz") as archive:
        images, labels, usages = (archive[name] for name in ("images", "label", "usage"))
    names = np.arange(len(labels)).astype(str)
    return Faces(images, labels.astype(np.int64), usages.astype(np.int64), names)


@pytest.fixture(scope="session")
def training_faces(shared):
    """Return the first 4,000 real images, all of Training, without reading the others."""
    count = 4000
    with np.load(shared / "fer2013" / "fer2013_train_public.npz") as archive:
        labels, usages = (archive[name][:count] for name in ("label", "usage"))
        with archive.zip.open("images.npy") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            pixels = np.frombuffer(bytearray(file.read(count * 48 * 48)), np.uint8)
    assert not usages.any()
    images, names = pixels.reshape(count, 48, 48), np.arange(count).astype(str)
    return Faces(images, labels.astype(np.int64), usages.astype(np.int64), names)


@pytest.fixture
def narrow_base():
    """Replace the base network by a narrow one, also as teacher, and skip learning curves."""
    with narrow_base_network():
        yield


@pytest.fixture
def narrow_vgg(monkeypatch):
    """Replace VGG19 by a narrow one, as building and saving the real one takes seconds."""
    monkeypatch.setattr(torchvision.models, "get_model", NarrowVGG)
