"""Architectures. Every model takes ``input_shape`` and ``num_classes`` first; the data set supplies both."""
