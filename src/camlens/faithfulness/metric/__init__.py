"""What every metric takes and returns: inputs, options, floor maps, and a result."""
