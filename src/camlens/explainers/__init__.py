"""The explainers: objects that wrap a model and return an explanation when called."""
