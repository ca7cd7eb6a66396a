"""Architectures. Every model takes ``units``, ``input_shape`` and ``num_classes`` by keyword."""
