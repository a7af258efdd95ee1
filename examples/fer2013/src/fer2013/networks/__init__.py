"""The networks, their weights files, and ImageNet's weights."""
