"""``python -m camlens.cli`` runs the command ``camlens``."""

from . import main

main()
