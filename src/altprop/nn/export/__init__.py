"""Trained networks as files without altprop's parametrizations."""
