"""Estimators: what stands in for the derivative of hard units. Rules by shape of their weight, one file each."""
