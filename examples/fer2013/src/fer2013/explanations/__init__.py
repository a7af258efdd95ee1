"""Pictures of explanations: the demo, and galleries of correct and wrong predictions."""
