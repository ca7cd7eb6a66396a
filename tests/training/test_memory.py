from __future__ import annotations

import pytest
import torch
from torch import nn

from altprop.problems import ConfigError
from altprop.training.memory import machine_memory, parameters_must_fit

CPU = torch.device("cpu")


def test_a_model_that_fits_is_built() -> None:
    with parameters_must_fit(CPU, memory=2 * 4 * (100 * 100 + 100)):
        nn.Linear(100, 100)
    assert machine_memory() > 2**28


def test_a_model_is_refused_at_the_parameter_that_does_not_fit() -> None:
    sizes = iter((100, 100, 100))
    with pytest.raises(ConfigError) as refused, parameters_must_fit(CPU, memory=2 * 4 * (2 * 100 * 101)):
        nn.Sequential(*(nn.Linear(size, size) for size in sizes))
    assert list(sizes) == []
    assert str(refused.value).startswith("model: its parameters and their gradients need more than the 0.0 GiB of memory")
    nn.Linear(100, 100)  # the limit ends with the context


@pytest.mark.parametrize("features", [10**7, 10**10])
def test_a_parameter_that_torch_cannot_allocate_is_one_line(features: int) -> None:
    with pytest.raises(ConfigError, match="do not fit the memory"), parameters_must_fit(CPU):
        nn.Linear(features, features)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="negative"), parameters_must_fit(CPU):
        nn.Linear(-1, 3)
