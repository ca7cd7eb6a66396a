"""The chain of convolutions that synthesizers and the heads compared with them are made of."""

from __future__ import annotations

from torch import nn


def conv_chain(channels: int, *, kernel_size: int, zero_bias: bool) -> nn.Sequential:
    """Three shape-preserving convolutions with bias, batch norm and ReLU after the first two, the last weight zero.

    The last bias keeps torch's default, U(+-1 / sqrt(channels * kernel_size^2)), as published; ``zero_bias`` makes it zero, so
    that the chain starts as the zero function (Jaderberg et al., 2017).
    """
    padding = kernel_size // 2
    chain = nn.Sequential(
        nn.Conv2d(channels, channels, kernel_size, padding=padding),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel_size, padding=padding),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel_size, padding=padding),
    )
    last = chain[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    nn.init.zeros_(last.weight)
    if zero_bias:
        nn.init.zeros_(last.bias)
    return chain
