"""Check every link inside the built pages: its file is there, and so is the place in it.

Sphinx checks its own references, but not raw links, pictures, or what themes and extensions write.
``python docs/check_links.py docs/_build/html`` says which links lead nowhere, and exits with 1.
"""

from __future__ import annotations

import functools
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links and the places of a page.

    Attributes:
        links: what its elements refer to.
        places: ids and names, which a link's fragment can point to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.places: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what an element refers to and what it is called."""
        for name, value in attrs:
            if value is None:
                continue
            if name in {"href", "src"}:
                self.links.add(value)
            elif name == "id" or (name == "name" and tag == "a"):
                self.places.add(value)


@functools.cache
def read(path: Path) -> Page:
    """Read a page."""
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def broken(root: Path) -> list[str]:
    """Return a line for each link below ``root`` that leads nowhere; links to elsewhere pass."""
    found = []
    for path in sorted(root.rglob("*.html")):
        for link in sorted(read(path).links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            aim = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            aim = aim / "index.html" if aim.is_dir() else aim
            if not aim.is_file():
                found.append(f"{path.relative_to(root)}: {link}: there is no such file")
            elif aim.suffix == ".html" and parts.fragment:
                place = unquote(parts.fragment)
                if place not in read(aim).places:
                    found.append(f"{path.relative_to(root)}: {link}: there is no such place")
    return found


def main() -> int:
    """Check the folder that the first argument names."""
    root = Path(sys.argv[1]).resolve()
    pages = sum(1 for _ in root.rglob("*.html"))
    if not pages:
        print(f"there are no pages in {root}", file=sys.stderr)
        return 1
    lines = broken(root)
    print(*lines, f"{pages} pages, {len(lines)} broken links", sep="\n")
    return 1 if lines else 0


if __name__ == "__main__":
    raise SystemExit(main())
