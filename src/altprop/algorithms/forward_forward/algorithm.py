"""The forward-forward algorithm with labels in the images.

Hinton (2022), *The Forward-Forward Algorithm: Some Preliminary Investigations*, arXiv 2212.13345.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Unpack, get_args

import torch
from annotated_types import Gt, Le
from torch import Tensor
from torch.nn import functional

from altprop.algorithms.base import Algorithm, AlgorithmOptions, gradient_of
from altprop.algorithms.blocks import cut
from altprop.algorithms.context import Capabilities
from altprop.algorithms.forward_forward.goodness import (
    GoodnessOf,
    class_goodness,
    goodness,
    goodness_loss,
    hard_negatives,
    layer_outputs,
    neutral_labels,
    normalized,
    uniform_negatives,
    with_labels,
)
from altprop.algorithms.optimization import OptimizerFactory, OptimizerStep
from altprop.algorithms.schedule import Schedule
from altprop.models.base import FeedForward
from altprop.nn.units.base import kind_of
from altprop.problems import ConfigError, Problem
from altprop.ranges import PositiveFloat

Negatives = Literal["hard", "uniform"]
PredictBy = Literal["goodness", "readout"]


class ForwardForward(Algorithm):
    """Trains every block to have a large goodness for images with their own label and a small one for images with a wrong label.

    A label is in the first pixels of an image, one per class. A block's input is the normalized output of the block before, and
    no gradient crosses a border. The model's classifier is a readout: it learns the class from the last block's output for the
    image with a neutral label, and does not change the blocks.

    The network predicts in two ways, and both are evaluated: by ``goodness``, the label with the largest sum of goodness over the
    blocks, which takes one forward pass per class; and by the ``readout``, in one forward pass.

    Args:
        threshold: Goodness at which a sample is as likely positive as negative. With ``goodness=sum``, per output value.
        goodness: ``mean`` or ``sum`` of the squared outputs of a block.
        negatives: How wrong labels are drawn: ``uniform``, or ``hard``, in proportion to the probability that the readout gives
            them.
        label_scale: Value of the pixel of the label. The pixels of the other classes are 0.
        predict_by: Which of the two is the network's prediction; the other is evaluated beside it.
        skip_first: Whether the sum of goodness leaves out the first block, as in section 3.3. An only block always counts.
        options: Arguments of :class:`~altprop.algorithms.base.Algorithm`.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(clip=True, needs_blocks=True, native_hard_units=True)

    def __init__(
        self,
        *,
        threshold: PositiveFloat = 1.0,
        goodness: GoodnessOf = "mean",
        negatives: Negatives = "hard",
        label_scale: Annotated[float, Gt(0), Le(1000)] = 1.0,
        predict_by: PredictBy = "goodness",
        skip_first: bool = True,
        **options: Unpack[AlgorithmOptions],
    ) -> None:
        problems = list(_problems(threshold, goodness, negatives, label_scale, predict_by))
        if problems:
            raise ConfigError(problems)
        super().__init__(**options)
        self.threshold = threshold
        self.goodness: GoodnessOf = goodness
        self.negatives = negatives
        self.label_scale = label_scale
        self.predict_by = predict_by
        self.skip_first = skip_first

    def build(self, optimizer: OptimizerFactory, schedule: Schedule) -> Iterable[OptimizerStep]:
        _, height, width = self.context.input_shape
        self.classes = self.context.num_classes
        if height * width < self.classes:
            description = f"images of {height} x {width} pixels have no room for the labels of {self.classes} classes"
            raise ConfigError([Problem("dataset", description, "at least one pixel per class")])
        self.blocks = cut(self.model, block_size=1, cut_points=None)
        self.optimization = self.optimizer_step(self.model.parameters(), optimizer, schedule)
        return [self.optimization]

    def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            features = self._features(inputs)
        scores = self._head(features)
        readout_loss = self.loss(scores, targets)
        wrong = self._wrong_labels(targets, scores.detach())
        loss = self._goodness_loss(inputs, targets, wrong)
        self.optimization.zero_grad()
        self.optimization.backward(loss + readout_loss)
        self.optimization.step()
        return {"loss": loss.detach(), "readout/loss": readout_loss.detach(), **self.measured(scores.detach(), targets)}

    def _goodness_loss(self, inputs: Tensor, targets: Tensor, wrong: Tensor) -> Tensor:
        """Return the sum of the losses of all blocks, on ``inputs`` with their own and with ``wrong`` labels ``[batch]``."""
        labels = functional.one_hot(torch.cat([targets, wrong]), self.classes)
        both = with_labels(torch.cat([inputs, inputs]), labels, self.label_scale)
        losses = []
        for outputs in layer_outputs(self.blocks, both, local=True):
            units = outputs[0].numel() if self.goodness == "sum" else 1
            positive, negative = goodness(outputs, self.goodness).chunk(2)
            losses.append(goodness_loss(positive, negative, self.threshold * units))
        return torch.stack(losses).sum()

    def _features(self, inputs: Tensor) -> Tensor:
        """Return the normalized output of the last block for ``inputs`` with the neutral label, differentiable end to end."""
        neutral = with_labels(inputs, neutral_labels(len(inputs), self.classes, inputs), self.label_scale)
        *_, last = layer_outputs(self.blocks, neutral, local=False)
        return normalized(last)

    def _wrong_labels(self, targets: Tensor, scores: Tensor) -> Tensor:
        generator = self.context.device_generator("negatives")
        noise = torch.rand(len(targets), self.classes, generator=generator, device=targets.device)
        if self.negatives == "uniform":
            return uniform_negatives(targets, self.classes, noise)
        return hard_negatives(targets, scores, noise)

    def _head(self, features: Tensor) -> Tensor:
        assert isinstance(self.model, FeedForward)
        scores: Tensor = self.model.head(features)
        return scores

    def reference_gradient(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return the gradient of the readout's loss, end to end, with the neutral label in the images."""
        return gradient_of(self.loss(self._head(self._features(inputs)), targets), self.model)

    def predict(self, inputs: Tensor) -> Tensor:
        if self.predict_by == "readout":
            return self._head(self._features(inputs))
        return self._class_goodness(inputs)

    def predictions(self, inputs: Tensor) -> dict[str, Tensor]:
        if self.predict_by == "readout":
            return {"": self.predict(inputs), "goodness": self._class_goodness(inputs)}
        return {"": self.predict(inputs), "readout": self._head(self._features(inputs))}

    def _class_goodness(self, inputs: Tensor) -> Tensor:
        counted = slice(1 if self.skip_first and len(self.blocks) > 1 else 0, None)
        return class_goodness(self.blocks, inputs, self.classes, self.label_scale, self.goodness, counted)

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield problems of the options, and hard units, whose goodness is constant."""
        yield from _problems(
            config.get("threshold", 1.0),
            config.get("goodness", "mean"),
            config.get("negatives", "hard"),
            config.get("label_scale", 1.0),
            config.get("predict_by", "goodness"),
        )
        model = root.get("model")
        if isinstance(model, Mapping) and kind_of(model.get("units")) is not None:
            description = "hard units have outputs of a fixed size, so their goodness says nothing"
            yield Problem("model.units", description, "smooth units", "model/units=relu")


def _problems(threshold: object, of: object, negatives: object, scale: object, predict_by: object) -> Iterator[Problem]:
    for name, value in (("threshold", threshold), ("label_scale", scale)):
        if not isinstance(value, int | float) or value <= 0:
            yield Problem(f"algorithm.{name}", str(value), "above 0", f"algorithm.{name}=1.0")
    for name, choice, choices in (
        ("goodness", of, get_args(GoodnessOf)),
        ("negatives", negatives, get_args(Negatives)),
        ("predict_by", predict_by, get_args(PredictBy)),
    ):
        if choice not in choices:
            yield Problem(f"algorithm.{name}", str(choice), " | ".join(choices), f"algorithm.{name}={choices[0]}")
