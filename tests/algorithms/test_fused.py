"""Which optimizers are fused, and where their learning rates are."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from altprop.algorithms import fused
from altprop.algorithms.backprop import Backprop
from altprop.algorithms.fused import DeviceRates, fused_on
from tests.algorithms.harness import Case, Training

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        (partial(torch.optim.SGD, lr=0.1), True),
        (partial(torch.optim.Adam, lr=0.1, fused=None), True),
        (torch.optim.AdamW, True),
        (partial(torch.optim.Adam, fused=False), False),
        (partial(torch.optim.Adam, foreach=True), None),
        (partial(torch.optim.Adam, differentiable=True), None),
        (torch.optim.RMSprop, None),
        (lambda parameters: torch.optim.SGD(parameters), None),
    ],
)
def test_optimizers_are_fused_on_cuda_unless_they_say_otherwise(factory: Any, expected: bool | None) -> None:
    parameters = [nn.Parameter(torch.ones(2))]
    assert fused_on(CUDA, factory)(parameters).defaults.get("fused") is expected
    assert fused_on(CPU, factory) is factory


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_the_fused_default_trains_alike(optimizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch has fused kernels for the CPU, too, where they are not the default."""
    case = Case(lambda weights: Backprop(weights=weights), optimizer=partial(optimizer, lr=0.01))
    plain = Training(case).run(12)
    monkeypatch.setattr(fused, "DEVICES", ("cpu",))
    trained = Training(case).run(12)
    assert trained.algorithm.optimizers[0].optimizer.defaults["fused"] is True
    assert trained.losses == pytest.approx(plain.losses, rel=1e-4)


def test_rates_are_tensors_only_during_a_step() -> None:
    optimizer = torch.optim.Adam([nn.Parameter(torch.ones(2))], lr=0.3, fused=True)
    rates = DeviceRates(optimizer, CPU)
    [group] = optimizer.param_groups
    memory = rates.tensors[0].data_ptr()
    for rate in (0.3, 0.1):
        group["lr"] = rate
        rates.refresh()
        with rates.in_place(capturing=True):
            assert group["lr"].item() == rate
            assert group["lr"].data_ptr() == memory
            assert group["capturable"]
        assert group["lr"] == rate
        assert not group["capturable"]


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_a_run_that_resumes_on_another_device_has_the_kernels_of_that_device(
    optimizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints contain ``fused`` among the settings of the optimizer."""
    case = Case(lambda weights: Backprop(weights=weights), optimizer=partial(optimizer, lr=0.01))
    plain = Training(case).run(3)
    monkeypatch.setattr(fused, "DEVICES", ("cpu",))
    resumed = Training(case).restore(plain.state())
    assert [group["fused"] for group in resumed.algorithm.optimizers[0].optimizer.param_groups] == [True]
    resumed.run(3)
    monkeypatch.undo()
    back = Training(case).restore(resumed.state())
    assert [group["fused"] for group in back.algorithm.optimizers[0].optimizer.param_groups] == [None]
    back.run(2)
    assert back.losses[-1] < plain.losses[0]
