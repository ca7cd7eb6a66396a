"""Networks whose weights are all binary, and the base of the rule that binarizes layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypedDict

import torch
from torch import Tensor, nn

from altprop.nn.weights.base import KEY, SavedWeights, WeightsContext, WeightsRule
from altprop.nn.weights.batch_norm import RecentInputs, has_batch_norm, reestimate
from altprop.nn.weights.binary.record import BinaryRecord
from altprop.nn.weights.binary.sign import Binarization, Scale, binarized
from altprop.nn.weights.layers import (
    KINDS,
    left_out,
    refuse_unknown,
    register_on_weight,
    require_plain_weights,
    total_weights,
    trained_layers,
    weight_layers,
)
from altprop.nn.weights.saved_run import computed_weights, load_weights, own_tensors, read_checkpoint_state
from altprop.problems import ConfigError, Problem
from altprop.ranges import FilePath, NonNegativeInt, PositiveFloat, Text


class BinaryOptions(TypedDict, total=False):
    """The options of :class:`Binary`, which a derived rule passes on."""

    epoch_end: Literal["legacy", "exact"]
    sign_zero: Literal[0, 1]
    clip: PositiveFloat | None
    scale: Scale
    weights_from: FilePath | None
    batch_norm_batches: NonNegativeInt
    dense: Sequence[Text]


class Binary(WeightsRule):
    """Every weight of a layer is ``sgn(W)`` of a latent float weight, from the first step on (Lan 2021, section 2).

    The gradient with respect to the sign is passed straight through to ``W``. Biases, norms and activations stay in floating
    point. Layers are linear, convolutional, attention and recurrent ones; weights that belong to none are left out and named.

    Args:
        epoch_end: ``legacy`` replaces, after every epoch and before evaluation, all weights by the *effective* ones that the last
            step's forward pass used, as the code behind the published MNIST and CIFAR numbers did (section 2.4). It does nothing
            in an epoch that the run does not finish. ``exact`` leaves the latent weights alone.
        sign_zero: The sign of an exact zero: 0 (as published) or 1.
        clip: Keep the latent weights of binary layers within [-clip, clip] after every step; None for no clipping.
        scale: Multiply the signs by the mean magnitude of the ``layer`` or output ``channel``; ``none`` for plain signs.
        weights_from: Checkpoint of another run of the same model to start from, for example a float one: the weights that its
            network computed with.
        batch_norm_batches: Re-estimate batch-norm statistics after every epoch on this many of its last mini-batches, with the
            weights that are evaluated. 0 keeps the running statistics.
        dense: Roles or names of the layers that stay in floating point, such as ``first`` and ``classifier``.
    """

    cuda_graph: ClassVar[bool] = True

    def __init__(
        self,
        *,
        epoch_end: Literal["legacy", "exact"] = "exact",
        sign_zero: Literal[0, 1] = 0,
        clip: PositiveFloat | None = None,
        scale: Scale = "none",
        weights_from: FilePath | None = None,
        batch_norm_batches: NonNegativeInt = 0,
        dense: Sequence[Text] = (),
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
        self.dense_selectors = tuple(dense)
        self.recent = RecentInputs(batch_norm_batches)
        self.epoch: int | None = None
        self.before_last_update: list[Tensor] = []

    # -- set-up ----------------------------------------------------------------------------------------------------------------

    def attach(self, model: nn.Module, context: WeightsContext) -> None:
        """Register :class:`Binarization` on every layer that is not ``dense``.

        Raises ``ConfigError`` if the model has no layer to binarize, a name fits no layer, or there is no batch norm for
        ``batch_norm_batches``.
        """
        every = trained_layers(model)
        if not every:
            raise ConfigError([Problem(KEY, f"the model has no {KINDS}", "dense weights", f"{KEY}=dense")])
        refuse_unknown([(f"{KEY}.dense", self.dense_selectors)], weight_layers(model))
        layers = [layer for layer in every if not any(layer.matches(selector) for selector in self.dense_selectors)]
        if not layers:
            description = f"{list(self.dense_selectors)} leaves no layer to binarize"
            raise ConfigError([Problem(f"{KEY}.dense", description, "fewer layers", f"{KEY}.dense=[first,classifier]")])
        require_plain_weights(model, layers)
        if self.recent.count and not has_batch_norm(model):
            key = f"{KEY}.batch_norm_batches"
            raise ConfigError([Problem(key, "the model has no batch norm", "0", f"{key}=0")])
        self.model = model
        self.context = context
        self.names = [layer.name for layer in layers]
        self.all_names = [layer.name for layer in every]
        self.left_out, weights = left_out(model), total_weights(model)
        self.binarizations = [Binarization(self.sign_zero, self.scale, layer.transposed_groups) for layer in layers]
        self.latents = [register_on_weight(layer, part) for layer, part in zip(layers, self.binarizations)]
        self.record = BinaryRecord(self.names, weights)

    def binary_at(self, epoch: int) -> list[bool]:
        """Return which layers are binary in ``epoch`` (0-based), in forward order. A pure function of the epoch (section 2.3)."""
        return [True] * len(self.names)

    def epoch_start(self, epoch: int) -> None:
        # not in attach, so that a resumed or evaluated run does not need the run that it once started from
        if not self.record.started:
            self.first_epoch()
        self._set_flags(epoch)

    def first_epoch(self) -> None:
        """Called once in a run, before its first step."""
        if self.weights_from is not None:
            key = f"{KEY}.weights_from"
            weights = computed_weights(read_checkpoint_state(self.weights_from, key), self.model, key)
            load_weights(own_tensors(self.model), weights, key)
        self.record.start(self.latents)

    def _set_flags(self, epoch: int) -> None:
        self.epoch = epoch
        for binarization, binary in zip(self.binarizations, self.binary_at(epoch)):
            binarization.binary = binary

    # -- training --------------------------------------------------------------------------------------------------------------

    def steps_left(self, step: int) -> int:
        """Return how many steps of the epoch follow step ``step`` (0-based, counted over all epochs)."""
        return self.context.steps_per_epoch - 1 - step % self.context.steps_per_epoch

    def step_start(self, step: int) -> None:
        if self.legacy and self.steps_left(step) == 0:
            self.before_last_update = [latent.detach().clone() for latent in self.latents]
        self.recent.recording = self.steps_left(step) < self.recent.count

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
        """Apply the ``epoch_end`` option and return the metrics of the weights to evaluate (:class:`BinaryRecord`)."""
        for latent, binarization, before in zip(self.latents, self.binarizations, self.before_last_update):
            latent.copy_(binarization.effective(before))
        self.before_last_update = []
        if self.recent.count:
            reestimate(self.model, self.recent.take())
        return self.record.epoch_end(self.latents, self.binarizations)

    # -- weights of other runs -------------------------------------------------------------------------------------------------

    @classmethod
    def computed_weights(cls, saved: SavedWeights) -> dict[str, Tensor]:
        """Return signs, times their scale, of the layers that are binary; see :meth:`.WeightsRule.computed_weights`."""
        places = cls.saved_places(saved)
        zero, scale = saved.options.get("sign_zero", 0), saved.options.get("scale", "none")
        return {
            name: binarized(latent, zero, scale, saved.layers[name].transposed_groups) if place in places else latent
            for place, (name, latent) in enumerate(saved.latents.items(), 1)
        }

    @classmethod
    def saved_places(cls, saved: SavedWeights) -> Sequence[int]:
        """Return which of the ``saved`` layers (1-based, in forward order) are binary."""
        return () if saved.state["epoch"] is None else range(1, len(saved.stored) + 1)

    # -- state -----------------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "record": self.record.state_dict(), "recent": self.recent.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.record.load_state_dict(state["record"], self.context.device)
        self.recent.load_state_dict(state["recent"], self.context.device)
        if state["epoch"] is not None:  # evaluating this checkpoint needs the flags, too
            self._set_flags(state["epoch"])

    # -- configuration ---------------------------------------------------------------------------------------------------------

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the problems of the node ``algorithm.weights``."""
        if config.get("epoch_end") == "legacy" and str(root["trainer"]["duration"]).endswith("st"):
            description = "legacy with a duration in steps"
            allowed = "a duration in whole epochs, because legacy acts at their end"
            yield Problem(f"{KEY}.epoch_end", description, allowed, "trainer.duration=10ep")
