"""Weights rules: dense, sparse, tied, binary. One file per family, all on :class:`~altprop.nn.weights.base.WeightsRule`."""
