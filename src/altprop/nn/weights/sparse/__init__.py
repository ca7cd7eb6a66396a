"""Weights rules for networks whose weights are mostly zero."""
