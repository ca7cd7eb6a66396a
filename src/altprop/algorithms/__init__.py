"""Algorithms: how a model is trained. One file (or folder) each, all on :class:`~altprop.algorithms.base.Algorithm`."""

from altprop.names import lazy_package

__getattr__, __dir__ = lazy_package(__name__)
