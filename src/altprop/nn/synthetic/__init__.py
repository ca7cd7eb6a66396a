"""Synthetic gradients: networks that predict gradients, and the interfaces that use the predictions."""
