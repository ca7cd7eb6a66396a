"""Architectures. Every model takes ``units``, ``input_shape`` and ``num_classes`` by keyword."""

from altprop.names import lazy_package

__getattr__, __dir__ = lazy_package(__name__)
