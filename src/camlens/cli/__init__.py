"""The command ``camlens``: explain photographs and folders, and write pictures, tables and reports.

Install with ``pip install "camlens[cli]"``; ``camlens --help`` lists the commands.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; the entry point in ``pyproject.toml``."""
    try:
        from .app import app
    except ImportError as error:
        sys.exit(f'The command camlens needs more packages: pip install "camlens[cli]" ({error})')
    for stream in (sys.stdout, sys.stderr):
        # A file's name may contain characters that the terminal cannot encode.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app()
