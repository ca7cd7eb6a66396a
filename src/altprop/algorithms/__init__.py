"""Algorithms: how a model is trained. One file (or folder) each, all on :class:`~altprop.algorithms.base.Algorithm`."""
