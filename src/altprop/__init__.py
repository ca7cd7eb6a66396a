"""altprop: train deep nets with algorithms other than plain end-to-end backprop."""

__version__ = "0.1.0"
