"""Evaluate several explanation methods by several metrics over a data set."""
