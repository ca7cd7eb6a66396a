"""Greedy algorithms, in which every block learns from a loss of its own."""
