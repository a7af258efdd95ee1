"""Audit of FER2013: duplicates, blank images and label errors."""
