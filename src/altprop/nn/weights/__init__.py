"""Weights rules: dense, tied, and a folder each for binary and sparse ones, all on :class:`.base.WeightsRule`."""
