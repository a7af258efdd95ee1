"""One training path for every configuration: batches, steps, checkpoints, curves."""
