"""Weights rules for networks whose weights are -1 or 1."""
