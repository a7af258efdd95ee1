"""The formulas of the methods, as pure functions of tensors that need no model."""
