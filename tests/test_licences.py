"""The table of licences names every dependency, with the licence that the package states."""

import csv
import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "licences.csv"

#: Words by which packages state their licences, where they do not use its identifier.
WORDS = {
    "BSD-3-Clause": r"BSD",
    "BSD-2-Clause": r"BSD-2",
    "Apache-2.0": r"Apache(-2\.0| 2\.0| Software)",
    "PSF": r"Python Software Foundation",
}


def rows():
    with TABLE.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_it_names_what_pyproject_asks_for_and_nothing_else():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(one for extra in extras.values() for one in extra)]
    names = {re.match(r"[\w-]+", requirement).group() for requirement in wanted}
    assert [row["package"] for row in rows()] == list(dict.fromkeys(r["package"] for r in rows()))
    assert {row["package"] for row in rows()} == names - {"camlens"}
    for row in rows():
        for extra in re.findall(r"``(\w+)``", row["needed for"]):
            assert any(re.match(r"[\w-]+", one).group() == row["package"] for one in extras[extra])


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["package"])
def test_it_says_what_the_package_says(row):
    try:
        stated = importlib.metadata.metadata(row["package"])
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{row['package']} is not installed")
    texts = [stated.get("License-Expression"), stated.get("License")]
    texts += [text for text in stated.get_all("Classifier") or [] if text.startswith("License")]
    text = " ".join(filter(None, texts))
    for name in re.findall(r"[A-Z][\w.-]*\d[\w.-]*|MIT(?:-CMU)?|PSF", row["licence"]):
        assert re.search(WORDS.get(name, re.escape(name)), text), f"{name} is not in {text:.200}"
