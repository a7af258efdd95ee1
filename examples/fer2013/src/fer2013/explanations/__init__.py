"""Explained faces as pictures: the demo's sheet and page, and the galleries."""
