"""The methods as pure functions of tensors; nothing in here knows a model."""
