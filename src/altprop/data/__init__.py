"""Data sets as device-resident tensors or streamed folders, augmentation, splits, embedded samples."""

from altprop.names import lazy_package

__getattr__, __dir__ = lazy_package(__name__)
