"""Algorithms that learn from gradients of earlier mini-batches."""
