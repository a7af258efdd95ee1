"""Checks that a map depends on the model, the class and the image, as it should."""
