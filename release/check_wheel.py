"""Check that the wheel and the sdist hold what belongs to them, and print their sizes.

``python release/check_wheel.py dist`` exits with 1 and a line for each file that does not belong.
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

#: What ``src/camlens`` may hold: code, the mark of its types, and the page of a run.
SUFFIXES = {".py", ".j2", ".js", ".css"}
MARK = "camlens/py.typed"

#: Folders and files at the top of the sdist, without what hatchling adds.
SDIST = {"src", "tests", "benchmarks", "docs", "README.md", "CHANGELOG.md", "LICENSE"}
SDIST |= {"CITATION.cff", "PKG-INFO", "pyproject.toml", ".gitignore"}


def problems_of_wheel(path: Path) -> list[str]:
    """Return a line for each file that does not belong into the wheel, or is missing."""
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
    strangers = [
        f"{path.name}: {name} does not belong into a wheel"
        for name in names
        if name != MARK
        and ".dist-info/" not in name
        and not (name.startswith("camlens/") and PurePosixPath(name).suffix in SUFFIXES)
    ]
    needed = (MARK, "camlens/__init__.py", "camlens/report/templates/report.html.j2")
    missing = [f"{path.name}: {name} is missing" for name in needed if name not in names]
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        missing.append(f"{path.name}: the licence is missing")
    return strangers + missing


def problems_of_sdist(path: Path) -> list[str]:
    """Return a line for each file at the sdist's top that does not belong there."""
    with tarfile.open(path) as sdist:
        tops = {PurePosixPath(name).parts[1] for name in sdist.getnames() if "/" in name}
    return [f"{path.name}: {top} does not belong into an sdist" for top in sorted(tops - SDIST)]


def main() -> int:
    """Check the folder that the first argument names."""
    folder = Path(sys.argv[1])
    wheels, sdists = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sdists) != 1:
        print(f"expected one wheel and one sdist in {folder}", file=sys.stderr)
        return 1
    problems = problems_of_wheel(wheels[0]) + problems_of_sdist(sdists[0])
    print(*problems, sep="\n", end="\n" if problems else "")
    for path in (*wheels, *sdists):
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
    with zipfile.ZipFile(wheels[0]) as wheel:
        unpacked = sum(entry.file_size for entry in wheel.infolist())
        print(f"installed: {unpacked / 1000:.0f} kB in {len(wheel.infolist())} files")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
