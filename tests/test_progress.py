"""A progress bar where there is a terminal, and nothing where there is none."""

import importlib.util
import io
import sys

import pytest
import torch

import camlens
from camlens.progress import progress_bar

from .nets import Small


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_nothing_is_written_where_there_is_no_terminal(capsys):
    camlens.Occlusion(Small().eval())(torch.rand(1, 3, 8, 8))
    with progress_bar(3, "RISE") as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("shown", [True, False])
def test_a_bar_that_is_asked_for_counts_images(shown, capsys):
    camlens.RISE(Small().eval(), masks=30, progress=shown)(torch.rand(1, 3, 8, 8))
    said = capsys.readouterr().err
    assert ("RISE" in said and "30" in said) is shown


def test_short_work_on_a_terminal_shows_none(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar(2, "RISE") as advance:
        advance(2)
    assert "RISE" not in terminal.getvalue()


def test_without_tqdm(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress_bar(2, "RISE") as advance:
        advance(2)
    with (
        pytest.raises(ImportError, match="progress=True needs tqdm: pip install tqdm"),
        progress_bar(2, "RISE", shown=True),
    ):
        pass
