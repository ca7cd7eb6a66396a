"""Equilibrium propagation and its relatives (Laborieux et al., 2021)."""
