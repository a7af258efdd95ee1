"""Data and networks for the whole example suite: made-up faces, real ones, and a narrow VGG19."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torchvision

sys.path.insert(0, str(Path(__file__).parent))

import made_up_files as made_up
from narrow_vgg import NarrowVGG

from fer2013.data.faces import Faces

pytest.register_assert_rewrite("run_folders")


@pytest.fixture(scope="session")
def csv_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "fer2013.csv"
    made_up.write_csv(path)
    return path


@pytest.fixture(scope="session")
def real_faces(shared):
    """All real faces of Training and PublicTest; unpacking them takes a second."""
    with np.load(shared / "fer2013" / "fer2013_train_public.npz") as archive:
        images, labels, usages = (archive[name] for name in ("images", "label", "usage"))
    names = np.arange(len(labels)).astype(str)
    return Faces(images, labels.astype(np.int64), usages.astype(np.int64), names)


@pytest.fixture
def narrow_vgg(monkeypatch):
    """Let every VGG19 of the example be narrow: the real one takes seconds to make and to write."""
    monkeypatch.setattr(torchvision.models, "get_model", NarrowVGG)
