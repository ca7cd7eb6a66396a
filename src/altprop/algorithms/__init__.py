"""Training algorithms, one file or folder each. All derive from :class:`~altprop.algorithms.base.Algorithm`."""

from altprop.names import lazy_package

__getattr__, __dir__ = lazy_package(__name__)
