"""Activation functions: smooth and saturating units, and hard units whose derivative is zero almost everywhere."""
