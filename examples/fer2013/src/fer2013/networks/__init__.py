"""Networks, their weights files, and weights pretrained on ImageNet."""
