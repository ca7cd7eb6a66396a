from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from altprop._torchvision import import_torchvision
from altprop.nn.metrics.base import Metric, check_on_example, is_torchmetric
from altprop.nn.metrics.functions import top_k
from altprop.nn.metrics.names import higher_is_better

SCORES = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [2.0, 3.0, 1.0]])
TARGETS = torch.tensor([1, 0, 1])


@pytest.mark.parametrize(("k", "values"), [(1, [0, 0, 100]), (2, [100, 0, 100]), (3, [100, 100, 100]), (5, [100, 100, 100])])
def test_top_k(k: int, values: list[float]) -> None:
    assert top_k(SCORES, TARGETS, k=k).tolist() == values
    with pytest.raises(ValueError, match="at least 1"):
        top_k(SCORES, TARGETS, k=0)


def test_the_mean_of_a_function_has_no_graph() -> None:
    scores = SCORES.clone().requires_grad_()
    for factory in (partial(top_k, k=2), lambda scores, targets: top_k(scores, targets, k=2).mean()):
        value = Metric("top2", factory).mean(scores, TARGETS)
        assert float(value) == pytest.approx(200 / 3)
        assert not value.requires_grad


def test_names_say_what_is_better() -> None:
    assert [higher_is_better(name) for name in ("accuracy", "top5", "test/f1", "hinge_loss", "calibration_error")] == [
        True,
        True,
        True,
        False,
        False,
    ]


def wrong_shape(scores: Tensor, targets: Tensor) -> Tensor:
    return scores


@pytest.mark.parametrize("factory", [wrong_shape, lambda scores, targets: 3.0])
def test_results_of_other_shapes_are_refused(factory: object) -> None:
    with pytest.raises(ValueError, match="one value per sample or a scalar"):
        check_on_example(Metric("wrong", factory), 4)  # type: ignore[arg-type]


def test_classes_of_torchmetrics() -> None:
    import_torchvision()  # torchmetrics imports it
    pytest.importorskip("torchmetrics")
    from torchmetrics.classification import MulticlassAccuracy

    assert is_torchmetric(MulticlassAccuracy)
    assert not is_torchmetric(nn.ReLU)
    metric = Metric("mean_recall", partial(MulticlassAccuracy, average="macro"))
    check_on_example(metric, 3)
    accumulator = metric.build(3, torch.device("cpu"))
    assert not accumulator.validate_args
    assert accumulator.num_classes == 3
    with pytest.raises(ValueError, match="must return a scalar"):
        check_on_example(Metric("recalls", partial(MulticlassAccuracy, average=None)), 3)
