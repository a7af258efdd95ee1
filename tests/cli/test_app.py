"""The command as a process: help, codes, pipes, terminals, completion, debugging."""

import importlib
import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import camlens
from camlens.cli import main

ROOT = str(Path(__file__).parents[2])


@pytest.fixture
def words():
    return ("explain", "hopper.png", "--model", "tests.cli.conftest:net")


def test_version_and_help(run):
    assert run("--version").out == camlens.__version__ + "\n"
    got = run("--help")
    assert got.code == 0
    for name in ("explain", "layers", "methods", "dataset", "evaluate", "report", "compare"):
        assert re.search(rf"{name} +\w", got.out)
    assert run().code == 2


def test_a_wrong_command_is_answered_with_a_near_one(run):
    got = run("explian")
    assert got.code == 2
    assert "Did you mean 'explain'?" in got.err


@pytest.mark.parametrize(
    "command", ["explain", "layers", "methods", "dataset", "evaluate", "report", "compare"]
)
def test_every_option_has_its_help(run, command):
    got = run(command, "--help", env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    assert got.code == 0
    for line in got.out.splitlines():
        if re.match(r"\u2502 \*? *--\w", line):
            assert len(re.findall(r"[a-z]{2,}", line)) > 4, line


@pytest.mark.slow
def test_results_in_a_narrow_pipe_whose_encoding_lacks_letters(process, words, folder):
    """One process for what holds of every pipe: its start takes seconds."""
    long, accented = folder / ("n" * 150 + ".png"), folder / "caf\u00e9.png"
    for copy in (long, accented):
        copy.write_bytes((folder / "hopper.png").read_bytes())
    env = {"PYTHONPATH": ROOT, "COLUMNS": "30", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    got = process(*words, long, accented, "absent.png", env=env)
    assert got.code == 1
    # Nothing but results is on the standard output.
    assert "predicted" in got.out
    assert "absent" not in got.out
    assert "there is no file absent.png" in got.err
    assert "\x1b" not in got.out + got.err
    assert str(long) in got.out.splitlines()
    assert "caf\\xe9.png" in got.out
    assert "Traceback" not in got.err


@pytest.mark.slow
def test_a_reader_that_leaves(folder, words):
    command = f"{sys.executable} -m camlens {' '.join(words)} --target all | true"
    got = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "PYTHONPATH": ROOT},
    )  # fmt: skip
    assert "Traceback" not in got.stderr


def in_terminal(monkeypatch, words):
    """Call the command in this process on a terminal; return its code and what was shown."""
    reader, writer = pty.openpty()
    parts = []

    def read():
        try:
            while part := os.read(reader, 65536):
                parts.append(part)
        except OSError:  # how Linux says that the other end is closed
            pass

    reading = threading.Thread(target=read)
    reading.start()
    with open(writer, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:  # noqa: PTH123
        patch.setattr(sys, "argv", ["camlens", *words])
        patch.setattr(sys, "stdout", terminal)
        patch.setattr(sys, "stderr", terminal)
        with pytest.raises(SystemExit) as left:
            main()
    reading.join()
    os.close(reader)
    return left.value.code, b"".join(parts).decode()


@pytest.mark.slow
@pytest.mark.parametrize("colours", [True, False])
def test_a_narrow_terminal(folder, words, monkeypatch, colours):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in {"COLUMNS": "40", "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    if not colours:
        monkeypatch.setenv("NO_COLOR", "1")
    code, shown = in_terminal(monkeypatch, [*words, "absent.png", "--regions", "template"])
    assert code == 1
    assert ("\x1b[1;31m" in shown) == colours  # a red "Error"
    assert not re.search(r"\x1b\[[\d;]*3\dm", shown) or colours
    assert "Traceback" not in shown
    # The table is folded into the width; sentences are left to the terminal.
    rows = [
        line for line in re.sub(r"\x1b\[[\d;?]*\w", "", shown).splitlines() if "density" in line
    ]
    assert rows
    assert all(len(row) <= 40 for row in rows)


def test_debugging(run):
    words = ("layers", "torchvision:nothing")
    assert run(*words).code == 2
    with pytest.raises(LookupError, match="no classification model 'nothing'"):
        run("--debug", *words)
    with pytest.raises(LookupError, match="no classification model 'nothing'"):
        run(*words, env={"CAMLENS_DEBUG": "1"})


def test_completion(monkeypatch, capsys):
    env = {"_CAMLENS_COMPLETE": "complete_bash", "COMP_WORDS": "camlens exp", "COMP_CWORD": "1"}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["camlens"])
    # Of python -m pytest, click would take that for the command's name.
    monkeypatch.setattr(sys.modules["__main__"], "__package__", None)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    assert capsys.readouterr().out.strip() == "explain"


def test_without_typer_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(camlens, "cli", camlens.cli)  # the import below sets it
    for name in list(sys.modules):
        if name.split(".")[:2] == ["camlens", "cli"]:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "typer", None)
    again = importlib.import_module("camlens.cli").main
    assert again is not main
    # A text is written to standard error, and the code is 1.
    with pytest.raises(SystemExit, match=r'pip install "camlens\[cli\]"') as left:
        again()
    assert isinstance(left.value.code, str)
