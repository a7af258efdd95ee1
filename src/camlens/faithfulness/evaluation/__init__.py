"""Methods by metrics over a data set."""
