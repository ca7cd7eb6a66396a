"""N:M sparsity: of every M consecutive input weights, the N largest are active.

Zhou, Ma, Zhu, Liu, Zhang, Yuan, Sun and Li (2021), *Learning N:M Fine-grained Structured Sparse Neural Networks From Scratch*,
ICLR, arXiv 2102.04010.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn
from torch.nn import functional

from altprop.nn.weights.base import KEY, SavedWeights, WeightsContext, WeightsRule
from altprop.nn.weights.costs import WeightCosts
from altprop.nn.weights.layers import WeightLayer, left_out, register_on_weight, select, weight_count
from altprop.problems import ConfigError, Problem
from altprop.ranges import PositiveInt, Text, WeightDecay


def n_of_m_mask(weight: Tensor, n: int, m: int, transposed_groups: int = 0) -> Tensor:
    """Return the boolean mask of the ``n`` largest magnitudes in every group of ``m`` weights, in the shape of ``weight``.

    ``weight`` is ``[out, in]`` or ``[out, in, *kernel]``; with ``transposed_groups``, that of a transposed convolution with so
    many groups, ``[in, out, *kernel]``. A group of weights is ``m`` consecutive inputs of one output at one kernel position. A
    last group that is smaller keeps ``n`` weights, or all if it has no more. Of equal magnitudes the first count.
    """
    if transposed_groups:
        by_group = weight.unflatten(0, (transposed_groups, -1)).transpose(1, 2).flatten(0, 1)
        mask = n_of_m_mask(by_group, n, m)
        return mask.unflatten(0, (transposed_groups, -1)).transpose(1, 2).flatten(0, 1)
    magnitudes = weight.detach().abs().movedim(1, -1)
    inputs = magnitudes.shape[-1]
    groups = functional.pad(magnitudes, (0, -inputs % m), value=-1.0).unflatten(-1, (-1, m))
    order = groups.argsort(dim=-1, descending=True, stable=True)
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, order[..., :n], True)
    return mask.flatten(-2)[..., :inputs].movedim(-1, 1)


class NOfMMask(nn.Module):
    """Parametrization of one layer's weight: latent ``W`` -> ``W * mask(W)``, with the identity as its derivative."""

    def __init__(self, n: int, m: int, transposed_groups: int = 0) -> None:
        super().__init__()
        self.n = n
        self.m = m
        self.transposed_groups = transposed_groups

    def of(self, latent: Tensor) -> Tensor:
        """Return the mask of ``latent``, see :func:`n_of_m_mask`."""
        return n_of_m_mask(latent, self.n, self.m, self.transposed_groups)

    def forward(self, latent: Tensor) -> Tensor:
        masked = latent.detach() * self.of(latent)
        return latent + (masked - latent.detach())  # exactly the masked value: w + 0 or w - w

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the latent weight for an assigned weight: the weight itself."""
        return weight


class NOfM(WeightsRule):
    """N:M sparse weights that are learned from scratch (SR-STE, section 3 of the paper).

    The forward pass uses the ``n`` largest of every ``m`` consecutive input weights, so the structure follows the weights. The
    gradient of the effective weight is passed straight through to all latent weights. In addition, weights that are not active
    decay with ``decay``, which keeps the structure from oscillating.

    Args:
        n: Number of active weights in a group.
        m: Size of a group.
        decay: Coefficient of the decay of inactive weights, ``lambda_W``; the gradient of an inactive weight gets ``decay * W``.
        layers: Roles or names of the layers that are sparse.
        dense: Roles or names of those among them that are not.
    """

    cuda_graph: ClassVar[bool] = True

    def __init__(
        self,
        *,
        n: PositiveInt = 2,
        m: Annotated[int, Ge(2), Le(1024)] = 4,
        decay: WeightDecay = 2e-4,
        layers: Sequence[Text] = ("conv", "linear"),
        dense: Sequence[Text] = ("stem", "classifier"),
    ) -> None:
        problems = list(_problems(n, m, decay))
        if problems:
            raise ConfigError(problems)
        self.n = n
        self.m = m
        self.decay = decay
        self.layer_selectors = tuple(layers)
        self.dense_selectors = tuple(dense)

    def attach(self, model: nn.Module, context: WeightsContext) -> None:
        """Register :class:`NOfMMask` on all layers whose outputs have more than ``n`` inputs.

        The others, such as depthwise convolutions, are left out, because nothing could be inactive there. Raises ``ConfigError``
        if nothing is selected or a name fits no layer.
        """
        selected = select(model, self.layer_selectors, self.dense_selectors)
        layers = [layer for layer in selected if num_inputs(layer) > self.n]
        if not layers:
            description = f"no layer has outputs with more than n={self.n} inputs"
            raise ConfigError([Problem(f"{KEY}.n", description, "a smaller n", "algorithm/weights=dense")])
        self.left_out = {**left_out(model), **{layer.name: weight_count(layer) for layer in selected if layer not in layers}}
        self.costs = WeightCosts(model, layers, context.device)
        self.masks = [NOfMMask(self.n, self.m, layer.transposed_groups) for layer in layers]
        self.latents = {register_on_weight(layer, mask): layer.name for layer, mask in zip(layers, self.masks)}

    @torch.no_grad()
    def adjust_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        if not self.decay:
            return
        masks = dict(zip(self.latents, self.masks))
        for parameter in parameters:
            if parameter in masks and parameter.grad is not None:
                inactive = ~masks[parameter].of(parameter)
                parameter.grad.add_(parameter * inactive, alpha=self.decay)

    @torch.no_grad()
    def epoch_end(self, epoch: int) -> dict[str, Tensor]:
        """Return the density of every layer, and the metrics of :class:`~altprop.nn.weights.costs.WeightCosts`."""
        active = torch.stack([mask.of(latent).sum() for latent, mask in zip(self.latents, self.masks)])
        metrics = {f"density/{name}": value for name, value in zip(self.latents.values(), (active / self.costs.sizes).unbind())}
        return {**metrics, **self.costs.metrics(active)}

    @classmethod
    def computed_weights(cls, saved: SavedWeights) -> dict[str, Tensor]:
        """Return the active weights; see :meth:`.WeightsRule.computed_weights`."""
        n, m = saved.options["n"], saved.options["m"]
        return {
            name: latent * n_of_m_mask(latent, n, m, saved.layers[name].transposed_groups)
            for name, latent in saved.latents.items()
        }

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the problems of the node ``algorithm.weights``."""
        yield from _problems(config.get("n", 2), config.get("m", 4), config.get("decay", 0.0))


def num_inputs(layer: WeightLayer) -> int:
    """Return the number of inputs, or of input channels, of every output of ``layer``."""
    return layer.shape[0] // layer.transposed_groups if layer.transposed_groups else layer.shape[1]


def _problems(n: object, m: object, decay: object) -> Iterator[Problem]:
    if not isinstance(m, int) or m < 2:
        yield Problem(f"{KEY}.m", str(m), "a whole number from 2 on", f"{KEY}.m=4")
    elif not isinstance(n, int) or not 1 <= n < m:
        yield Problem(f"{KEY}.n", f"{n} of {m}", f"a whole number from 1 to {m - 1}", f"{KEY}.n={m // 2}")
    if not isinstance(decay, int | float) or decay < 0:
        yield Problem(f"{KEY}.decay", str(decay), "0 or more", f"{KEY}.decay=2e-4")
