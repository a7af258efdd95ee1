"""Training configurations: their fields, and the values of each configuration."""
