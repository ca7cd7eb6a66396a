"""Trackers of a run: metrics file, console, W&B and TensorBoard; and the run's metadata."""

from altprop.names import lazy_package

__getattr__, __dir__ = lazy_package(__name__)
