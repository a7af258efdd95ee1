"""How good a network is: predictions, accuracy, calibration, and what is kept of them."""
