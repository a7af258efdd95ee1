"""The experiment on leaking splits."""
