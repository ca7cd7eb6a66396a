"""Synthesizers: small networks that predict a gradient from a trigger and, optionally, a context."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from altprop.nn.heads.conv_chain import conv_chain
from altprop.nn.initialization import BatchNormInit, init_batch_norm


class BasicSynthesizer(nn.Module):
    """Linear layers on flat triggers: ``a = W_t t + b_t (+ W_c c + b_c)``, then ``n_hidden`` times ``a <- W relu(a) + b``.

    The weights of the last layer (without hidden layers: of both first ones) start at zero; biases keep torch's default.

    Args:
        output_dim: Number of predicted values.
        n_hidden: Number of hidden layers.
        hidden_dim: Width of the hidden layers; None for ``output_dim``.
        trigger_dim: Number of features of the trigger; None for ``output_dim``.
        context_dim: Number of features of the context; None for no context.
    """

    def __init__(
        self,
        output_dim: int,
        *,
        n_hidden: int = 0,
        hidden_dim: int | None = None,
        trigger_dim: int | None = None,
        context_dim: int | None = None,
    ) -> None:
        super().__init__()
        sizes = [*[hidden_dim or output_dim] * n_hidden, output_dim]
        self.from_trigger = nn.Linear(trigger_dim or output_dim, sizes[0])
        self.from_context = nn.Linear(context_dim, sizes[0]) if context_dim is not None else None
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(sizes))
        last = [self.layers[-1]] if n_hidden else [self.from_trigger, self.from_context]
        for layer in last:
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.weight)

    def forward(self, trigger: Tensor, context: Tensor | None = None) -> Tensor:
        """``[batch, trigger_dim]`` (and ``[batch, context_dim]``) -> ``[batch, output_dim]``.

        Raises ``ValueError`` if the synthesizer was built for a context and ``context`` is None.
        """
        activations = self.from_trigger(trigger)
        if self.from_context is not None:
            if context is None:
                raise ValueError("this synthesizer was built for a context, but none was passed")
            activations = activations + self.from_context(context)
        for layer in self.layers:
            activations = layer(activations.relu())
        return activations


class ConvSynthesizer(nn.Module):
    """Three shape-preserving convolutions (:func:`altprop.nn.heads.conv_chain.conv_chain`) on feature maps.

    A context is mapped linearly to one number per channel and added at every position after the first convolution. The linear map
    also exists, unused, without a context, as in the published networks. With ``sequence``, triggers are ``[batch, channels,
    positions]`` instead of maps.
    """

    def __init__(
        self,
        channels: int,
        context_dim: int,
        *,
        kernel_size: int = 5,
        zero_bias: bool = False,
        batch_norm_init: BatchNormInit = "ones",
        sequence: bool = False,
    ) -> None:
        super().__init__()
        self.is_sequence = sequence
        self.convolutions = conv_chain(channels, kernel_size=kernel_size, zero_bias=zero_bias, sequence=sequence)
        self.from_context = nn.Linear(context_dim, channels)
        init_batch_norm(self, batch_norm_init)

    def forward(self, trigger: Tensor, context: Tensor | None = None) -> Tensor:
        """``[batch, channels, height, width]`` (and ``[batch, context_dim]``) -> the shape of ``trigger``."""
        if self.is_sequence:
            trigger = trigger.unsqueeze(2)
        activations = self.convolutions[0](trigger)
        if context is not None:
            activations = activations + self.from_context(context)[:, :, None, None]
        predicted: Tensor = self.convolutions[1:](activations)
        return predicted.squeeze(2) if self.is_sequence else predicted
