"""Evaluation of networks: predictions, accuracy, calibration, and stored results."""
