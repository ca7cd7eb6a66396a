"""Weights rules for networks whose linear and convolutional weights are -1 or 1."""
