"""A trained model that answers for tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from altprop.data.normalization import Normalization
from altprop.training.device import dtype_of
from altprop.training.parts import Parts
from altprop.training.trained import Trained


class Predictor:
    """The trained model of a run: ``predictor(images)`` returns its scores.

    The answers are those that evaluations of the run count: with the weights that its rule leaves (masks, signs), after the
    relaxation of an energy-based network, and so on.
    """

    def __init__(self, parts: Parts, trained: Trained) -> None:
        self._algorithm = trained.run.algorithm
        self._normalization: Normalization | None = None
        self._dtype = dtype_of(parts.settings.precision)
        self.device = trained.run.context.device
        """Where the model is. Inputs are moved there, and answers are there."""
        self.input_shape = trained.run.data.input_shape
        """``(channels, height, width)`` of an image."""
        self.class_names = trained.run.data.class_names
        """The names of the classes, in the order of the scores."""
        self.checkpoint = trained.path
        """The file that the weights come from."""
        mean, std = getattr(parts.data_set, "mean", None), getattr(parts.data_set, "std", None)
        if mean is not None and std is not None:
            self._normalization = Normalization.of(mean, std, self.device)

    @property
    def model(self) -> nn.Module:
        """The network itself, with its parameters."""
        return self._algorithm.model

    def __call__(self, images: Tensor) -> Tensor:
        """The scores ``[batch, classes]`` of ``images`` ``[batch, channels, height, width]``.

        8-bit images are normalized as the run's data set normalizes them; floating-point images count as normalized already.

        Raises:
            ValueError: For images of another shape or type.
        """
        if images.dim() != 4 or tuple(images.shape[1:]) != tuple(self.input_shape):
            shape = ", ".join(map(str, self.input_shape))
            raise ValueError(f"images of shape {tuple(images.shape)}; this model takes (batch, {shape})")
        images = images.to(self.device)
        if images.dtype == torch.uint8 and self._normalization is not None:
            images = self._normalization(images)
        if not images.is_floating_point():
            raise ValueError(f"images of type {images.dtype}; 8-bit pixels (uint8) or normalized floating-point numbers")
        with self._algorithm.inference():
            scores = self._algorithm.predict(images.to(self._dtype))
        return scores.clone()  # a normal tensor, outside of inference mode

    def classify(self, images: Tensor) -> Tensor:
        """The number of the class with the highest score, ``[batch]``."""
        return self(images).argmax(dim=1)
