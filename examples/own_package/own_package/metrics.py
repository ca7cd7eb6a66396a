"""A metric: any function of class scores ``[batch, classes]`` and targets ``[batch]``."""

from torch import Tensor


def margin(scores: Tensor, targets: Tensor) -> Tensor:
    """The score of the target minus the highest other score, ``[batch]``; negative for a wrong answer."""
    target = scores.gather(1, targets[:, None])
    others = scores.scatter(1, targets[:, None], float("-inf"))
    return (target - others.amax(dim=1, keepdim=True))[:, 0]
