"""Metrics that change pixels and run the model again."""
