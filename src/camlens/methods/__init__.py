"""The formulas of the methods, as pure functions of tensors that see no model."""
