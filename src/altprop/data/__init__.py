"""Data sets, kept on the device or streamed from image files, with augmentation, normalization and a validation split."""

from altprop.names import lazy_package

__getattr__, __dir__ = lazy_package(__name__)
