"""Activations and edges of energy-based networks."""
