"""Predictive coding: values of every layer are inferred before weights change."""
