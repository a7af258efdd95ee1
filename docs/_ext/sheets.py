"""What the gallery's examples draw: matplotlib figures, whether pyplot knows them or not.

``camlens.sheet`` returns a plain figure, which sphinx-gallery's own scraper, looking at pyplot's
windows, does not see.
"""

from __future__ import annotations

from textwrap import indent
from typing import Any

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

#: Set on a figure that is on the page already.
_SHOWN = "_camlens_shown"

_DPI = 100

#: The theme's column of text in pixels; what is wider scrolls on a phone (``_static/output.css``).
_COLUMN = 736


def scrape(block: tuple[Any, ...], names: dict[str, Any], conf: dict[str, Any]) -> str:
    """Save the figures that a block of an example made, each once, and show them.

    Args:
        block: kind, code and line of the block.
        names: the names of its files, and the example's variables.
        conf: of sphinx-gallery.

    Returns:
        reStructuredText with the pictures; a figure's title describes it to those who cannot see.
    """
    parts = []
    for figure in list(names["example_globals"].values()):
        if isinstance(figure, Figure) and not hasattr(figure, _SHOWN):
            setattr(figure, _SHOWN, True)
            path = next(names["image_path_iterator"])
            figure.savefig(path, dpi=_DPI)
            title = figure.texts[0].get_text() if figure.texts else "drawn by the code above"
            picture = figure_rst([path], conf["src_dir"], title.replace("\n", " "))
            if figure.get_figwidth() * _DPI > _COLUMN:
                picture = ".. container:: wide\n\n" + indent(picture, "   ")
            parts.append(picture)
    return "\n".join(parts)
