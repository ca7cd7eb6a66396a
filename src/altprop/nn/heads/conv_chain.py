"""The chain of convolutions in synthesizers and in the heads that are compared with them."""

from __future__ import annotations

from torch import nn


def conv_chain(channels: int, *, kernel_size: int, zero_bias: bool, sequence: bool = False) -> nn.Sequential:
    """Build three shape-preserving convolutions with bias; the first two are followed by batch norm and ReLU.

    ``[batch, channels, height, width]`` -> the same shape. The last convolution's weight starts at zero. Its bias keeps torch's
    default, U(+-1 / sqrt(channels * kernel_size^2)), as published; with ``zero_bias`` it is zero too, so that the chain starts as
    the zero function (Jaderberg et al., 2017). For a ``sequence``, maps have the height 1 and kernels, too.
    """
    kernel = (1, kernel_size) if sequence else (kernel_size, kernel_size)
    padding = (kernel[0] // 2, kernel[1] // 2)
    chain = nn.Sequential(
        nn.Conv2d(channels, channels, kernel, padding=padding),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, padding=padding),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, padding=padding),
    )
    last = chain[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    nn.init.zeros_(last.weight)
    if zero_bias:
        nn.init.zeros_(last.bias)
    return chain
