"""N:M sparsity: of every M consecutive input weights, the N largest are active.

Zhou, Ma, Zhu, Liu, Zhang, Yuan, Sun and Li (2021), *Learning N:M Fine-grained Structured Sparse Neural Networks From Scratch*,
ICLR, arXiv 2102.04010.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from altprop.nn.weights.base import KEY, WeightsContext, WeightsRule
from altprop.nn.weights.layers import register_on_weight, select
from altprop.problems import ConfigError, Problem


def n_of_m_mask(weight: Tensor, n: int, m: int) -> Tensor:
    """Return the boolean mask of the ``n`` largest magnitudes in every group of ``m`` weights, in the shape of ``weight``.

    ``weight`` is ``[out, in]`` or ``[out, in, height, width]``. A group is ``m`` consecutive inputs of one output at one kernel
    position. A last group that is smaller keeps ``n`` weights, or all if it has no more. Of equal magnitudes the first count.
    """
    magnitudes = weight.detach().abs().movedim(1, -1)
    inputs = magnitudes.shape[-1]
    groups = functional.pad(magnitudes, (0, -inputs % m), value=-1.0).unflatten(-1, (-1, m))
    order = groups.argsort(dim=-1, descending=True, stable=True)
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, order[..., :n], True)
    return mask.flatten(-2)[..., :inputs].movedim(-1, 1)


class NOfMMask(nn.Module):
    """Parametrization of one layer's weight: latent ``W`` -> ``W * mask(W)``, with the identity as its derivative."""

    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self.n = n
        self.m = m

    def forward(self, latent: Tensor) -> Tensor:
        masked = latent.detach() * n_of_m_mask(latent, self.n, self.m)
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
        n: int = 2,
        m: int = 4,
        decay: float = 2e-4,
        layers: Sequence[str] = ("conv", "linear"),
        dense: Sequence[str] = ("stem", "classifier"),
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
        """Register :class:`NOfMMask`. Raises ``ConfigError`` if nothing is selected or a name fits no layer."""
        layers = select(model, self.layer_selectors, self.dense_selectors)
        self.latents = {register_on_weight(layer, NOfMMask(self.n, self.m)): layer.name for layer in layers}
        self.other_parameters = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in self.latents)

    @torch.no_grad()
    def adjust_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        if not self.decay:
            return
        for parameter in parameters:
            if parameter in self.latents and parameter.grad is not None:
                inactive = ~n_of_m_mask(parameter, self.n, self.m)
                parameter.grad.add_(parameter * inactive, alpha=self.decay)

    @torch.no_grad()
    def epoch_end(self, epoch: int) -> dict[str, Tensor]:
        """Return the density of every layer and the number of non-zero parameters as device scalars."""
        active = {name: n_of_m_mask(latent, self.n, self.m) for latent, name in self.latents.items()}
        metrics = {f"density/{name}": mask.float().mean() for name, mask in active.items()}
        metrics["nonzero_parameters"] = torch.stack([mask.sum() for mask in active.values()]).sum() + self.other_parameters
        return metrics

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the problems of the node ``algorithm.weights``."""
        yield from _problems(config.get("n", 2), config.get("m", 4), config.get("decay", 0.0))


def _problems(n: object, m: object, decay: object) -> Iterator[Problem]:
    if not isinstance(m, int) or m < 2:
        yield Problem(f"{KEY}.m", str(m), "a whole number from 2 on", f"{KEY}.m=4")
    elif not isinstance(n, int) or not 1 <= n < m:
        yield Problem(f"{KEY}.n", f"{n} of {m}", f"a whole number from 1 to {m - 1}", f"{KEY}.n={m // 2}")
    if not isinstance(decay, int | float) or decay < 0:
        yield Problem(f"{KEY}.decay", str(decay), "0 or more", f"{KEY}.decay=2e-4")
