"""The command ``camlens``: from photographs, folders and runs to pictures, tables and pages.

``pip install "camlens[cli]"``; ``camlens --help``.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; the way in that ``pyproject.toml`` names."""
    try:
        from .app import app
    except ImportError as error:
        sys.exit(f'The command camlens needs more: pip install "camlens[cli]" ({error})')
    for stream in (sys.stdout, sys.stderr):
        # A file's name may hold what the terminal's encoding has not.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app()
