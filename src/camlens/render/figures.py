"""Matplotlib figures that a notebook shows by themselves. Imports matplotlib: import it late."""

from __future__ import annotations

import io

from matplotlib import figure


class Figure(figure.Figure):
    """A matplotlib figure that shows itself at the end of a notebook's cell.

    A plain figure that pyplot does not manage is shown only after ``%matplotlib inline``, which
    registers a formatter for figures. IPython prefers that formatter to this method, so that there
    is one picture with it and one without it.
    """

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()
