"""Options, collection and fixtures of the whole suite: ``--device``, and the real images."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent
#: They train a network; a doctest has no place for a mark.
SLOW_DOCTESTS = {
    "camlens.testing.check_explainer",
    "camlens.faithfulness.sanity.planted_evidence.planted_evidence",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--device``, on which every model and image of the tests is put."""
    parser.addoption("--device", default="cpu", help="such as cpu or cuda; default cpu")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without searching for garbage: all that is made stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Mark the slow doctests."""
    for item in items:
        if item.name in SLOW_DOCTESTS:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """Return the device under test; new tensors are made there."""
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(autouse=True)
def _seeded_on_device(device: torch.device) -> Iterator[None]:
    torch.manual_seed(0)
    assert torch.is_grad_enabled(), "a test before this one left gradients switched off"
    # A default device would add a function mode to every call, so CPU runs go without it.
    with contextlib.nullcontext() if device.type == "cpu" else device:
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder with real FER2013 images, or skip with the reason."""
    folder = Path(os.environ.get("CAMLENS_SHARED", ROOT.parent / "shared"))
    if not (folder / "fer2013" / "fer2013_train_public.npz").is_file():
        pytest.skip(f"no FER2013 images and face models: {folder} is absent (set CAMLENS_SHARED)")
    return folder
