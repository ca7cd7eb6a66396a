"""The functions that forward-forward learning is made of: goodness, its loss, labels in images, negative labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

GoodnessOf = Literal["mean", "sum"]
Block = Callable[[Tensor], Tensor]


def goodness(outputs: Tensor, of: GoodnessOf) -> Tensor:
    """Return the mean or sum of the squares of each sample's ``outputs`` ``[batch, …]``, as ``[batch]``."""
    squares = outputs.square().flatten(1)
    return squares.mean(dim=1) if of == "mean" else squares.sum(dim=1)


def goodness_loss(positive: Tensor, negative: Tensor, threshold: float) -> Tensor:
    """Return the loss of telling positive from negative samples by their goodness, with ``p = sigmoid(goodness - threshold)``.

    It is the mean of ``-log p`` over ``positive`` plus the mean of ``-log(1 - p)`` over ``negative`` (section 2, eq. 1).
    """
    return functional.softplus(threshold - positive).mean() + functional.softplus(negative - threshold).mean()


def normalized(features: Tensor) -> Tensor:
    """Divide each sample of ``features`` ``[batch, …]`` by its root mean square, which hides its goodness from later blocks."""
    scale = features.flatten(1).square().mean(dim=1).add(1e-8).rsqrt()
    return features * scale.view(-1, *(1 for _ in features.shape[1:]))


def layer_outputs(blocks: Sequence[Block], inputs: Tensor, *, local: bool) -> Iterator[Tensor]:
    """Yield the output of each block; its input is the normalized output of the one before, without its graph if ``local``."""
    features = inputs
    for block in blocks:
        outputs = block(features)
        yield outputs
        features = normalized(outputs.detach() if local else outputs)


def with_labels(images: Tensor, labels: Tensor, scale: float) -> Tensor:
    """Replace the first pixels of the first channel of ``images`` ``[batch, channels, h, w]`` by ``scale * labels``.

    ``labels`` are ``[batch, classes]``: one-hot, or all ``1 / classes`` for the neutral label (section 3.3).
    """
    labeled = images.clone()
    labeled[:, 0].view(len(images), -1)[:, : labels.shape[1]] = scale * labels.to(images.dtype)
    return labeled


def neutral_labels(count: int, classes: int, like: Tensor) -> Tensor:
    """Return ``[count, classes]`` labels that favor no class, on the device and in the dtype of ``like``."""
    return like.new_full((count, classes), 1.0 / classes)


def uniform_negatives(targets: Tensor, classes: int, noise: Tensor) -> Tensor:
    """Return a wrong class for each of ``targets`` ``[batch]``, uniformly. ``noise`` ``[batch, classes]`` is in [0, 1)."""
    return (targets + 1 + (noise[:, 0] * (classes - 1)).long()) % classes


def hard_negatives(targets: Tensor, scores: Tensor, noise: Tensor) -> Tensor:
    """Return a wrong class for each of ``targets`` ``[batch]``, drawn in proportion to the softmax of ``scores`` (section 3.3).

    ``scores`` and ``noise`` are ``[batch, classes]``; ``noise`` is uniform in [0, 1) and makes the draw (the Gumbel-max trick).
    """
    gumbel = -torch.log(-torch.log(noise.clamp(1e-7, 1.0 - 1e-7)))
    wrong = functional.one_hot(targets, scores.shape[1]).to(scores.dtype) * torch.finfo(scores.dtype).min
    return (scores.log_softmax(dim=1) + gumbel.to(scores.dtype) + wrong).argmax(dim=1)


def class_goodness(
    blocks: Sequence[nn.Module], images: Tensor, classes: int, scale: float, of: GoodnessOf, counted: slice
) -> Tensor:
    """Return ``[batch, classes]``: for each label put into ``images``, the sum of the goodness of the ``counted`` blocks.

    The paper counts all blocks but the first (section 3.3).
    """
    scores = []
    for one_hot in torch.eye(classes, device=images.device, dtype=images.dtype):
        labeled = with_labels(images, one_hot.expand(len(images), -1), scale)
        outputs = list(layer_outputs(blocks, labeled, local=True))
        scores.append(torch.stack([goodness(output, of) for output in outputs[counted]]).sum(dim=0))
    return torch.stack(scores, dim=1)
