"""The interface of every metric: inputs, options, floor maps and the result."""
