"""``python -m camlens`` runs the command ``camlens``."""

from .cli import main

main()
