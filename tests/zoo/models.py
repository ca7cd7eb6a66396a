"""Small models as a user may write them, with layers that altprop's own models do not have. Images are scaled to 8 x 8 pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from altprop.models.base import FeedForward

Units = Callable[[], nn.Module]


class Zoo(FeedForward):
    """Base of the models: blocks and a head from :meth:`layers`."""

    def __init__(self, *, input_shape: tuple[int, int, int], num_classes: int, units: Units = nn.ReLU) -> None:
        super().__init__()
        self.input_shape, self.num_classes = input_shape, num_classes
        blocks, self.classifier = self.layers(units)
        if input_shape[1:] != (8, 8):
            blocks[0] = nn.Sequential(nn.AdaptiveAvgPool2d(8), blocks[0])
        self.stages = nn.ModuleList(blocks)
        self.chain(blocks, self.classifier)

    def layers(self, units: Units) -> tuple[list[nn.Module], nn.Module]:
        raise NotImplementedError


class Patches(nn.Module):
    """``[batch, 1, 8, 8]`` -> 4 tokens ``[batch, 4, d]``, with learned positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(1, width, 4, stride=4)
        self.position = nn.Parameter(0.02 * torch.randn(1, 4, width))

    def forward(self, images: Tensor) -> Tensor:
        return self.project(images).flatten(2).transpose(1, 2) + self.position


class Encoder(nn.Module):
    """A transformer block with pre-normalization; ``separate`` gives queries, keys and values weights of their own."""

    def __init__(self, width: int, units: Units, *, separate: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        if separate:
            self.attention = nn.MultiheadAttention(width, 2, batch_first=True, kdim=width - 2, vdim=width - 4)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), units(), nn.Linear(2 * width, width))
        self.separate = separate

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm1(tokens)
        keys, values = (x[..., :-2], x[..., :-4]) if self.separate else (x, x)
        tokens = tokens + self.attention(x, keys, values, need_weights=False)[0]
        return tokens + self.mlp(self.norm2(tokens))


class MeanOfTokens(nn.Module):
    """``[batch, tokens, d]`` -> ``[batch, d]``."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.mean(dim=1)


class ViT(Zoo):
    """Two transformer blocks on four patches."""

    def layers(self, units: Units) -> tuple[list[nn.Module], nn.Module]:
        blocks = [nn.Sequential(Patches(8), Encoder(8, units)), Encoder(8, units, separate=True)]
        return blocks, nn.Sequential(MeanOfTokens(), nn.Linear(8, self.num_classes))


class TorchTransformer(Zoo):
    """Torch's own transformer layers, which have fused kernels for evaluation."""

    def layers(self, units: Units) -> tuple[list[nn.Module], nn.Module]:
        def encoder() -> nn.Module:
            return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

        blocks = [nn.Sequential(Patches(8), encoder()), encoder()]
        return blocks, nn.Sequential(MeanOfTokens(), nn.Linear(8, self.num_classes))


class Rows(nn.Module):
    """``[batch, 1, 8, 8]`` -> ``[batch, 8, 8]``: rows as channels or as steps of a sequence."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, 0]


class Conv1dNet(Zoo):
    """Convolutions over sequences ``[batch, channels, time]``, one of them transposed."""

    def layers(self, units: Units) -> tuple[list[nn.Module], nn.Module]:
        blocks: list[nn.Module] = [
            nn.Sequential(Rows(), nn.Conv1d(8, 8, 3, padding=1, stride=2), nn.BatchNorm1d(8), units()),
            nn.Sequential(nn.ConvTranspose1d(8, 12, 2, stride=2, groups=2), nn.BatchNorm1d(12), units()),
            nn.Sequential(nn.Conv1d(12, 12, 3, padding="same", padding_mode="circular"), nn.BatchNorm1d(12), units()),
        ]
        return blocks, nn.Sequential(nn.AdaptiveAvgPool1d(2), nn.Flatten(), nn.Linear(24, self.num_classes))


class Recurrent(nn.Module):
    """A recurrent layer without its state: ``[batch, time, features]`` -> ``[batch, time, hidden]``."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, sequence: Tensor) -> Tensor:
        return self.layer(sequence)[0]


class LastStep(nn.Module):
    """``[batch, time, features]`` -> ``[batch, features]``."""

    def forward(self, sequence: Tensor) -> Tensor:
        return sequence[:, -1]


class LSTMNet(Zoo):
    """A bidirectional LSTM and a GRU over the rows of an image."""

    def layers(self, units: Units) -> tuple[list[nn.Module], nn.Module]:
        blocks: list[nn.Module] = [
            nn.Sequential(Rows(), Recurrent(nn.LSTM(8, 8, batch_first=True, bidirectional=True))),
            Recurrent(nn.GRU(16, 8, batch_first=True)),
        ]
        return blocks, nn.Sequential(LastStep(), nn.Linear(8, self.num_classes))


class DepthwiseNet(Zoo):
    """Depthwise and pointwise convolutions."""

    def layers(self, units: Units) -> tuple[list[nn.Module], nn.Module]:
        def block(inputs: int, outputs: int) -> nn.Module:
            depthwise = nn.Conv2d(inputs, inputs, 3, stride=2, padding=1, groups=inputs, bias=False)
            return nn.Sequential(depthwise, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), units())

        return [block(1, 8), block(8, 16)], nn.Sequential(nn.Flatten(), nn.Linear(64, self.num_classes))


class SharedNet(Zoo):
    """A block that uses one layer twice, under two names."""

    def layers(self, units: Units) -> tuple[list[nn.Module], nn.Module]:
        shared = nn.Linear(16, 16)
        blocks: list[nn.Module] = [
            nn.Sequential(nn.Flatten(), nn.Linear(64, 16), units()),
            nn.Sequential(shared, units(), shared, units()),
        ]
        return blocks, nn.Linear(16, self.num_classes)


class SpectralNet(Zoo):
    """Spectral norm on every layer but the last."""

    def layers(self, units: Units) -> tuple[list[nn.Module], nn.Module]:
        blocks: list[nn.Module] = [
            nn.Sequential(spectral_norm(nn.Conv2d(1, 4, 3, stride=2, padding=1)), units(), nn.Flatten()),
            nn.Sequential(spectral_norm(nn.Linear(64, 16)), units()),
        ]
        return blocks, nn.Linear(16, self.num_classes)


class FrozenNet(Zoo):
    """A first block that is not trained."""

    def layers(self, units: Units) -> tuple[list[nn.Module], nn.Module]:
        blocks: list[nn.Module] = [
            nn.Sequential(nn.Flatten(), nn.Linear(64, 16), units()).requires_grad_(False),
            nn.Sequential(nn.Linear(16, 16), units()),
        ]
        return blocks, nn.Linear(16, self.num_classes)


class Lazy(Zoo):
    """A layer that learns the number of its inputs from its first mini-batch."""

    def layers(self, units: Units) -> tuple[list[nn.Module], nn.Module]:
        blocks: list[nn.Module] = [nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.LazyBatchNorm1d(affine=False), units())]
        return blocks, nn.Linear(8, self.num_classes)


class TwiceUsed(Zoo):
    """One layer in two blocks."""

    def layers(self, units: Units) -> tuple[list[nn.Module], nn.Module]:
        shared = nn.Linear(64, 64)
        return [nn.Sequential(nn.Flatten(), shared, units()), nn.Sequential(shared, units())], nn.Linear(64, self.num_classes)


class NoOwner(Zoo):
    """A parameter in no block."""

    def layers(self, units: Units) -> tuple[list[nn.Module], nn.Module]:
        self.scale = nn.Parameter(torch.ones(1))
        return [nn.Sequential(nn.Flatten(), nn.Linear(64, 8), units())], nn.Linear(8, self.num_classes)


class Joined(Zoo):
    """Two layers with one parameter."""

    def layers(self, units: Units) -> tuple[list[nn.Module], nn.Module]:
        first, second = nn.Linear(64, 64), nn.Linear(64, 64)
        second.weight = first.weight
        return [nn.Sequential(nn.Flatten(), first, units(), second, units())], nn.Linear(64, self.num_classes)


class Normalized(Zoo):
    """Torch's norms of weights that weights rules refuse."""

    def __init__(self, norm: Callable[[nn.Module], nn.Module], **options: Any) -> None:
        object.__setattr__(self, "norm", norm)  # nn.Module takes attributes only after its own constructor
        super().__init__(**options)

    def layers(self, units: Units) -> tuple[list[nn.Module], nn.Module]:
        return [nn.Sequential(nn.Flatten(), self.norm(nn.Linear(64, 8)), units())], nn.Linear(8, self.num_classes)


ZOO: dict[str, Callable[..., Any]] = {
    "vit": ViT,
    "transformer": TorchTransformer,
    "conv1d": Conv1dNet,
    "lstm": LSTMNet,
    "depthwise": DepthwiseNet,
    "shared": SharedNet,
    "spectral": SpectralNet,
    "frozen": FrozenNet,
}
