"""The command ``leakage``: how leaking splits raise the validation accuracy."""
