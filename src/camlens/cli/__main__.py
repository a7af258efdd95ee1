"""``python -m camlens.cli`` is the command ``camlens``."""

from . import main

main()
