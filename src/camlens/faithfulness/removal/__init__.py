"""Metrics that remove or reveal pixels and run the model again."""
