"""Networks whose linear and convolutional weights are binary: the base of the binary rules, and the one without a schedule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from altprop.nn.weights.base import WeightsContext, WeightsRule
from altprop.nn.weights.batch_norm import RecentInputs, has_batch_norm, reestimate
from altprop.nn.weights.binary.record import BinaryRecord
from altprop.nn.weights.binary.sign import Binarization, Scale
from altprop.nn.weights.layers import weight_layers
from altprop.nn.weights.saved_run import load_model_weights, read_algorithm_state
from altprop.problems import ConfigError, Problem

KEY = "algorithm.weights"


class Binary(WeightsRule):
    """Every linear and convolutional weight is ``sgn(W)`` of a latent float weight, from the first step on (Lan 2021, section 2).

    The gradient of the sign goes straight through to ``W``; biases, norms and activations stay in floating point. ``sign_zero``
    is the sign of an exact zero. ``clip`` keeps the latent weights of binary layers within [-clip, clip] after every step.
    ``scale`` multiplies the signs by the mean magnitude of the layer or output channel.

    ``epoch_end: legacy`` replaces, after every epoch and before evaluation, all weights by the *effective* ones that the last
    step's forward pass used, as the code behind the published MNIST and CIFAR numbers did (section 2.4); ``exact`` leaves the
    latent weights alone. An epoch that the run does not finish has no such end. ``weights_from`` is the checkpoint of another run
    of the same model to start from, say a float one. With ``batch_norm_batches`` the statistics of batch norms are estimated
    anew after every epoch, with the weights as they are evaluated, on that many of the epoch's last mini-batches.
    """

    def __init__(
        self,
        epoch_end: Literal["legacy", "exact"] = "exact",
        sign_zero: Literal[0, 1] = 0,
        clip: float | None = None,
        scale: Scale = "none",
        weights_from: str | None = None,
        batch_norm_batches: int = 0,
    ) -> None:
        if clip is not None and clip <= 0:
            raise ValueError(f"clip must be positive, not {clip}; null leaves the latent weights alone")
        if batch_norm_batches < 0:
            raise ValueError(f"batch_norm_batches must not be negative, not {batch_norm_batches}")
        self.legacy = epoch_end == "legacy"
        self.sign_zero = sign_zero
        self.clip = clip
        self.scale: Scale = scale
        self.weights_from = weights_from
        self.recent = RecentInputs(batch_norm_batches)
        self.epoch: int | None = None
        self.before_last_update: list[Tensor] = []

    # -- set-up ----------------------------------------------------------------------------------------------------------------

    def attach(self, model: nn.Module, context: WeightsContext) -> None:
        """Register :class:`Binarization` on every layer.

        Raises ``ConfigError`` where there is no layer, or no batch norm to estimate.
        """
        layers = weight_layers(model)
        if not layers:
            raise ConfigError([Problem(KEY, "the model has no linear or convolutional layer", "dense weights", f"{KEY}=dense")])
        if self.recent.count and not has_batch_norm(model):
            key = f"{KEY}.batch_norm_batches"
            raise ConfigError([Problem(key, "the model has no batch norm", "0", f"{key}=0")])
        self.model = model
        self.context = context
        self.names = [layer.name for layer in layers]
        self.binarizations = [Binarization(self.sign_zero, self.scale) for _ in layers]
        for layer, binarization in zip(layers, self.binarizations):
            parametrize.register_parametrization(layer.module, "weight", binarization, unsafe=True)
        self.latents: list[nn.Parameter] = [latent_weight(layer.module) for layer in layers]
        self.record = BinaryRecord(self.names)

    def binary_at(self, epoch: int) -> list[bool]:
        """Which layers are binary in ``epoch`` (0-based), in forward order. A function of the epoch alone (section 2.3)."""
        return [True] * len(self.names)

    def epoch_start(self, epoch: int) -> None:
        if (
            not self.record.started
        ):  # not in attach: a run that is resumed or evaluated does not need the run it once started from
            self.first_epoch()
        self._set_flags(epoch)

    def first_epoch(self) -> None:
        """What happens once in a run, before its first step."""
        if self.weights_from is not None:
            key = f"{KEY}.weights_from"
            load_model_weights(self.model, read_algorithm_state(self.weights_from, key), key)
        self.record.start(self.latents)

    def _set_flags(self, epoch: int) -> None:
        self.epoch = epoch
        for binarization, binary in zip(self.binarizations, self.binary_at(epoch)):
            binarization.binary = binary

    # -- training --------------------------------------------------------------------------------------------------------------

    def steps_left(self, step: int) -> int:
        """Steps of the epoch that follow step ``step`` (0-based, over all epochs)."""
        return self.context.steps_per_epoch - 1 - step % self.context.steps_per_epoch

    def step_start(self, step: int) -> None:
        if self.legacy and self.steps_left(step) == 0:
            self.before_last_update = [latent.detach().clone() for latent in self.latents]
        self.recent.wanted = self.steps_left(step) < self.recent.count

    def observe(self, inputs: Tensor) -> None:
        self.recent.observe(inputs)

    @torch.no_grad()
    def step_end(self, step: int, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        if self.clip is not None:
            for latent, binarization in zip(self.latents, self.binarizations):
                if binarization.binary:
                    latent.clamp_(-self.clip, self.clip)

    @torch.no_grad()
    def epoch_end(self, epoch: int) -> dict[str, Tensor]:
        """Apply the epoch-end rule and return what :class:`BinaryRecord` says of the weights that are evaluated."""
        for latent, binarization, before in zip(self.latents, self.binarizations, self.before_last_update):
            latent.copy_(binarization.effective(before))
        self.before_last_update = []
        if self.recent.count:
            reestimate(self.model, self.recent.take())
        return self.record.epoch_end(self.latents, self.binarizations)

    # -- state -----------------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "record": self.record.state_dict(), "recent": self.recent.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.record.load_state_dict(state["record"], self.context.device)
        self.recent.load_state_dict(state["recent"], self.context.device)
        if state["epoch"] is not None:  # an evaluation of this checkpoint needs the flags, too
            self._set_flags(state["epoch"])

    # -- configuration ---------------------------------------------------------------------------------------------------------

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Problems of the node ``algorithm.weights``."""
        if config.get("epoch_end") == "legacy" and str(root["trainer"]["duration"]).endswith("st"):
            given = "legacy with a duration in steps"
            yield Problem(f"{KEY}.epoch_end", given, "whole epochs, at whose end it acts", "trainer.duration=10ep")


def latent_weight(module: nn.Module) -> nn.Parameter:
    """The latent float weight of a layer with a parametrized weight."""
    parametrizations = module.parametrizations
    assert isinstance(parametrizations, nn.ModuleDict)
    latent = parametrizations["weight"].original
    assert isinstance(latent, nn.Parameter)
    return latent
