"""Algorithms that learn from predicted gradients."""
