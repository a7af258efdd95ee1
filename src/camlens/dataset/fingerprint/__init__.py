"""Hash everything that affects the results of a run, so that only an unchanged run is resumed."""

from .walk import Walk, fingerprint

__all__ = ["Walk", "fingerprint"]
