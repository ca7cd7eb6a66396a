"""Metrics by their public names; see :mod:`altprop.names`."""

from altprop.names import lazy_package

__getattr__, __dir__ = lazy_package(__name__)
