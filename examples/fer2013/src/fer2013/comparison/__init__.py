"""Comparison of all networks with the slide deck's results."""
