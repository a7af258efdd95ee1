"""Sanity checks: does a map depend on the model's weights, the class and the image?"""
