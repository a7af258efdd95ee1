"""Matplotlib figures that notebooks display on their own. Importing this imports matplotlib."""

from __future__ import annotations

import io

from matplotlib import figure


class Figure(figure.Figure):
    """A matplotlib figure that a notebook displays at the end of a cell.

    A notebook displays a plain figure that pyplot does not manage only after the line magic
    ``%matplotlib inline``, which registers a formatter for figures. IPython prefers that formatter
    to this class's method, so the figure appears exactly once with it and without it.
    """

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()
