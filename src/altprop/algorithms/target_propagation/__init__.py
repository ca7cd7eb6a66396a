"""Feasible target propagation for networks with hard units."""
