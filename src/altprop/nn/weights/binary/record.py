"""Metrics of a binary network's weights per epoch: binary layers, zeros, flipped signs, ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from altprop.nn.weights.binary.sign import Binarization


class BinaryRecord:
    """Metrics of the layers ``names`` of a network with ``weights`` weights in all, left-out ones included.

    Remembers the signs at the end of the last epoch, one byte per weight, to count those that flip.
    """

    def __init__(self, names: Sequence[str], weights: int) -> None:
        self.names = list(names)
        self.weights = weights
        self.signs: list[Tensor] = []

    @property
    def started(self) -> bool:
        """Whether there are remembered signs to compare with."""
        return bool(self.signs)

    def start(self, latents: Sequence[Tensor]) -> None:
        """Remember the signs with which training starts."""
        self.signs = [_signs(latent) for latent in latents]

    def epoch_end(self, latents: Sequence[Tensor], binarizations: Sequence[Binarization]) -> dict[str, Tensor]:
        """Return the metrics as device scalars (section 7).

        Per layer: ``binary/`` 1 or 0; ``zeros/`` number of exact zeros; ``flips/`` fraction of the latent weights whose sign
        differs from that at the end of the last epoch; ``latent_min/`` and ``latent_max/``. Of the whole network:
        ``binary_layers``; ``binary_weights``, the number of weights in binary layers; ``binary_share``, their share of all
        weights; ``fully_binary``, 1 if all these layers are binary, else 0; ``zeros``;
        ``flips`` in binary layers; ``min`` and ``max`` of the effective weights and 0.
        """
        metrics: dict[str, Tensor] = {}
        zeros, flipped, lowest, highest = [], [], [], []
        flags = [binarization.binary for binarization in binarizations]
        for place, (name, latent, binarization) in enumerate(zip(self.names, latents, binarizations)):
            signs = _signs(latent)
            effective = binarization.effective(latent)
            flipped.append((signs != self.signs[place]).sum())
            zeros.append((effective == 0).sum())
            lowest.append(effective.min())
            highest.append(effective.max())
            self.signs[place] = signs
            metrics[f"binary/{name}"] = torch.tensor(float(binarization.binary))
            metrics[f"zeros/{name}"] = zeros[-1]
            metrics[f"flips/{name}"] = flipped[-1] / latent.numel()
            metrics[f"latent_min/{name}"] = latent.detach().min()
            metrics[f"latent_max/{name}"] = latent.detach().max()
        binary_weights = sum(latent.numel() for latent, binary in zip(latents, flags) if binary)
        flips_in_binary = torch.stack([count for count, binary in zip(flipped, flags) if binary] or [torch.zeros(())]).sum()
        return {
            "binary_layers": torch.tensor(sum(flags)),
            "binary_weights": torch.tensor(binary_weights),
            "binary_share": torch.tensor(binary_weights / self.weights),
            "fully_binary": torch.tensor(float(all(flags))),
            "zeros": torch.stack(zeros).sum(),
            "flips": flips_in_binary / max(1, binary_weights),
            "min": torch.stack(lowest).min().clamp(max=0),
            "max": torch.stack(highest).max().clamp(min=0),
            **metrics,
        }

    def state_dict(self) -> dict[str, Any]:
        """The remembered signs."""
        return {"signs": list(self.signs)}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.signs = [signs.to(device) for signs in state["signs"]]


def _signs(latent: Tensor) -> Tensor:
    return torch.sign(latent.detach()).to(torch.int8)
