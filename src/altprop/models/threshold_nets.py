"""The two CIFAR-10 networks of the measurements of hard-threshold training; pooling comes before the units."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from altprop.models.base import FeedForward, InputShape
from altprop.models.checks import require_size
from altprop.nn.initialization import BatchNormInit, init_batch_norm
from altprop.nn.units.base import UnitsFactory
from altprop.problems import ConfigError, Problem
from altprop.ranges import Probability


class ConvNet4(FeedForward):
    """Two 5 x 5 convolutions of 32 and 64 channels, each max-pooled, a layer of 1024 units, linear class scores.

    4,259,274 parameters for CIFAR-10, 3,274,634 for MNIST. The first convolution pads by 3 pixels, so 32 x 32 images give maps of
    34 x 34, 17 x 17, 8 x 8. ``batch_norm`` normalizes the outputs of the second and third layer of units. A block ends with its
    units, or with the batch norm after them. Raises ``ConfigError`` for images below 2 x 2 pixels.
    """

    def __init__(
        self,
        *,
        batch_norm: bool = False,
        batch_norm_init: BatchNormInit = "ones",
        units: UnitsFactory,
        input_shape: InputShape,
        num_classes: int,
    ) -> None:
        require_size("convnet4", input_shape, 2, "model=mlp")
        super().__init__()
        self.input_shape = input_shape
        self.num_classes = num_classes
        channels, height, width = input_shape
        first = [("conv", nn.Conv2d(channels, 32, 5, padding=3)), ("pool", nn.MaxPool2d(2)), ("units", units())]
        second = [("conv", nn.Conv2d(32, 64, 5, padding=2)), ("pool", nn.MaxPool2d(2)), ("units", units())]
        features = ((height + 2) // 4) * ((width + 2) // 4) * 64
        third = [("flatten", nn.Flatten()), ("linear", nn.Linear(features, 1024)), ("units", units())]
        if batch_norm:
            second.append(("norm", nn.BatchNorm2d(64)))
            third.append(("norm", nn.BatchNorm1d(1024)))
        self.features = nn.Sequential(*(nn.Sequential(OrderedDict(layers)) for layers in (first, second, third)))
        self.classifier = nn.Linear(1024, num_classes)
        init_batch_norm(self, batch_norm_init)
        self.chain(list(self.features), self.classifier)


class ConvNet8(FeedForward):
    """Seven convolutions of 48 to 512 channels, channel dropout before the last, linear class scores (DoReFa's SVHN network).

    For images of 32 x 32 pixels (1,492,554 parameters with batch norm, ten classes) or 40 x 40 (2,082,378). Raises
    ``ConfigError`` for other sizes. A block consists of dropout, convolution, batch norm, max-pool and units. The first
    convolution has a bias and no batch norm; the others have a bias only without batch norm.
    """

    def __init__(
        self,
        *,
        batch_norm: bool = True,
        batch_norm_init: BatchNormInit = "ones",
        channel_dropout: Probability = 0.5,
        units: UnitsFactory,
        input_shape: InputShape,
        num_classes: int,
    ) -> None:
        if input_shape[1:] not in ((32, 32), (40, 40)):
            description = f"images of {input_shape[1]} x {input_shape[2]} pixels"
            raise ConfigError(
                [Problem("dataset", description, "convnet8 takes 32 x 32 or 40 x 40", "model=convnet4 or dataset=shapes")]
            )
        super().__init__()
        self.input_shape = input_shape
        self.num_classes = num_classes
        small = input_shape[1] == 32

        def block(
            sizes: tuple[int, int], kernel: int, padding: int, pool: bool = False, norm: bool = batch_norm
        ) -> nn.Sequential:
            layers: OrderedDict[str, nn.Module] = OrderedDict(conv=nn.Conv2d(*sizes, kernel, padding=padding, bias=not norm))
            if norm:
                layers["norm"] = nn.BatchNorm2d(sizes[1], eps=1e-4)
            if pool:
                layers["pool"] = nn.MaxPool2d(2)
            layers["units"] = units()
            return nn.Sequential(layers)

        last = block((128, 512), 4 if small else 5, 0)
        last = nn.Sequential(OrderedDict([("dropout", nn.Dropout2d(channel_dropout)), *last.named_children()]))
        self.features = nn.Sequential(
            block((input_shape[0], 48), 5, 2 if small else 0, pool=True, norm=False),
            block((48, 64), 3, 1),
            block((64, 64), 3, 1, pool=True),
            block((64, 128), 3, 0),
            block((128, 128), 3, 1),
            block((128, 128), 3, 0),
            last,
        )
        self.classifier = nn.Sequential(OrderedDict(flatten=nn.Flatten(), linear=nn.Linear(512, num_classes)))
        init_batch_norm(self, batch_norm_init)
        self.chain(list(self.features), self.classifier)
