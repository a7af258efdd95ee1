"""The command as a process: help, codes, pipes, terminals, completion, debugging."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

import camlens

ROOT = str(Path(__file__).parents[2])


@pytest.fixture
def words():
    return ("explain", "hopper.png", "--model", "tests.cli.conftest:net")


@pytest.mark.slow
def test_version_and_help(process, run):
    assert process("--version").out == camlens.__version__ + "\n"
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
def test_nothing_but_results_on_the_standard_output(process, words):
    got = process(*words, "absent.png", env={"PYTHONPATH": ROOT})
    assert got.code == 1
    assert "predicted" in got.out
    assert "absent" not in got.out
    assert "there is no file absent.png" in got.err
    assert "\x1b" not in got.out + got.err
    got = process(*words, "absent.png", "--json", env={"PYTHONPATH": ROOT})
    assert got.json["failed"][0]["photo"] == "absent.png"


@pytest.mark.slow
def test_lines_in_a_pipe_are_whole(process, words, folder):
    long = folder / ("n" * 150 + ".png")
    long.write_bytes((folder / "hopper.png").read_bytes())
    got = process(*words, long, env={"PYTHONPATH": ROOT, "COLUMNS": "30"})
    assert str(long) in got.out.splitlines()


@pytest.mark.slow
def test_a_reader_that_leaves(folder, words):
    command = f"{sys.executable} -m camlens.cli {' '.join(words)} --target all | true"
    got = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "PYTHONPATH": ROOT},
    )  # fmt: skip
    assert "Traceback" not in got.stderr


@pytest.mark.slow
def test_an_encoding_that_lacks_letters(process, words, folder):
    name = folder / "caf\u00e9.png"
    name.write_bytes((folder / "hopper.png").read_bytes())
    env = {"PYTHONPATH": ROOT, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    got = process(*words, name, env=env)
    assert got.code == 0, got.err
    assert "caf\\xe9.png" in got.out


@pytest.mark.slow
@pytest.mark.parametrize("colours", [True, False])
def test_a_narrow_terminal(folder, words, colours):
    env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")}
    env |= {"PYTHONPATH": ROOT, "COLUMNS": "40", "TERM": "xterm-256color"}
    env |= {} if colours else {"NO_COLOR": "1"}
    reader, writer = pty.openpty()
    command = [sys.executable, "-m", "camlens.cli", *words, "absent.png", "--regions", "template"]
    with subprocess.Popen(command, stdout=writer, stderr=writer, env=env) as process:
        os.close(writer)
        text = b""
        try:
            while part := os.read(reader, 65536):
                text += part
        except OSError:  # how Linux says that the other end is closed
            pass
    os.close(reader)
    assert process.returncode == 1
    shown = text.decode()
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


@pytest.mark.slow
def test_completion(process):
    env = {"_CAMLENS_COMPLETE": "complete_bash", "COMP_WORDS": "camlens exp", "COMP_CWORD": "1"}
    script = "import sys; sys.argv[0] = 'camlens'; from camlens.cli import main; main()"
    got = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, **env},
    )  # fmt: skip
    assert got.stdout.strip() == "explain"


@pytest.mark.slow
def test_without_typer_it_says_what_to_install(folder):
    script = "import sys; sys.modules['typer'] = None; from camlens.cli import main; main()"
    got = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert got.returncode == 1
    assert 'pip install "camlens[cli]"' in got.stderr
    assert "Traceback" not in got.stderr
