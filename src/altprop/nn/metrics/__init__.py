"""Metrics of a run's own, besides loss and accuracy: nodes of the config group ``metrics``."""
