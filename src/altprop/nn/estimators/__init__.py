"""Estimators: replacements for the derivative of hard units in the backward pass."""
