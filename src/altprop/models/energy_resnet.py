"""Residual energy-based networks for equilibrium propagation, after Hopfield-ResNet.

Elayedam and Srinivasan (2025), *Scaling Equilibrium Propagation to Deeper Neural Network Architectures*, arXiv 2509.26003.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from altprop.models.base import InputShape
from altprop.models.checks import list_of_sizes, refuse
from altprop.models.energy import CONVOLUTIONS_PER_STAGE, EnergyConvNet, activation_problems, scale_problems
from altprop.nn.energy.activations import ActivationName
from altprop.nn.energy.edges import Skip
from altprop.problems import ConfigError, Problem
from altprop.ranges import PositiveFloat, PositiveInt, PositiveShare, Share


class EnergyResNet(EnergyConvNet):
    """Convolutional energy-based network with skip connections.

    A stage is a 3 x 3 convolution with pooling and a residual block: two 3 x 3 convolutions, and a connection without weights
    between the states below and above them. The primitive function has the terms of :class:`EnergyConvNet` and
    ``skip <s_below, s_above>`` for each block, so the states below and above a block drive each other.

    With ``stages`` of four widths and no ``hidden`` layers there are 13 layers of weights. The default activation
    ``hard_sigmoid`` is a ReLU that is clipped at 1.

    Args:
        stages: Channels of each stage.
        skip: Strength of the skip connections, from 0 to below 1: two units that drive each other with a strength of 1 would grow
            until they are clipped.
        pool: Pooling of each stage (2 x 2, stride 2): ``max`` or ``average``.
        hidden: Widths of fully connected states before the class scores.
        activation, softmax_readout, init_scale, keep_probabilities: See :class:`altprop.models.energy.EnergyModel`.
        input_shape: Channels, height and width of one input.
        num_classes: Number of class scores.

    Raises:
        ConfigError: If options do not fit together, or nothing is left of the images.
    """

    def __init__(
        self,
        *,
        stages: Sequence[PositiveInt] = (16, 32),
        skip: Share = 0.5,
        pool: Literal["max", "average"] = "max",
        hidden: Sequence[PositiveInt] = (),
        activation: ActivationName = "hard_sigmoid",
        softmax_readout: bool = False,
        init_scale: PositiveFloat | None = None,
        keep_probabilities: Sequence[PositiveShare] | None = None,
        input_shape: InputShape,
        num_classes: int,
    ) -> None:
        options = {"stages": stages, "skip": skip, "pool": pool, "hidden": hidden}
        refuse(self._problems({**options, "activation": activation, "init_scale": init_scale}))
        if min(input_shape[1:]) < 2 ** len(stages):
            description = f"nothing is left of images of {input_shape[1]} x {input_shape[2]} after {len(stages)} poolings"
            raise ConfigError([Problem("model.stages", description, "fewer stages")])
        per_stage = CONVOLUTIONS_PER_STAGE
        count = per_stage * len(stages)
        super().__init__(
            channels=[width for width in stages for _ in range(per_stage)],
            kernels=[3] * count,
            strides=[1] * count,
            paddings=[1] * count,
            pools=[pool, "none", "none"] * len(stages),
            hidden=hidden,
            activation=activation,
            softmax_readout=softmax_readout,
            init_scale=init_scale,
            keep_probabilities=keep_probabilities,
            input_shape=input_shape,
            num_classes=num_classes,
        )
        self.skips = tuple(Skip(first, first + per_stage - 1, skip) for first in range(0, count, per_stage) if skip)

    @staticmethod
    def _problems(config: Mapping[str, Any]) -> Iterator[Problem]:
        yield from list_of_sizes("model.stages", config["stages"], "model.stages=[16,32]")
        yield from list_of_sizes("model.hidden", config["hidden"], "model.hidden=[]")
        yield from activation_problems(config["activation"])
        yield from scale_problems(config.get("init_scale"))
        if not config["stages"]:
            yield Problem("model.stages", "[]", "at least one stage", "model.stages=[16,32]")
        if not isinstance(config["skip"], int | float) or not 0 <= config["skip"] < 1:
            yield Problem("model.skip", str(config["skip"]), "0 to below 1", "model.skip=0.5")
        if config["pool"] not in ("max", "average"):
            yield Problem("model.pool", str(config["pool"]), "max or average", "model.pool=max")
