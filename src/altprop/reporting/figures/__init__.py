"""Figures of single runs and of several runs together, drawn with Matplotlib."""
