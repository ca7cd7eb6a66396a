"""Adaptive pooling by products, which has deterministic kernels everywhere, equals PyTorch's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import altprop
from altprop.nn.pooling import AdaptiveAvgPool2d, averaging_matrix, pooled_by_products
from tests.device import META, no_transfers


@pytest.mark.parametrize("size", [(7, 5), (8, 8), (1, 1), (13, 32)])
@pytest.mark.parametrize("pooled", [(2, 2), (3, 1), (7, 7), (1, 4)])
def test_products_give_the_pooling_and_its_gradient(size, pooled):
    inputs = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    expected = nn.AdaptiveAvgPool2d(pooled)(inputs)
    outputs = pooled_by_products(inputs, *pooled)
    assert torch.allclose(outputs, expected, rtol=0, atol=1e-14)
    upstream = torch.randn_like(expected)
    gradients = [torch.autograd.grad(result, inputs, upstream)[0] for result in (outputs, expected)]
    assert torch.allclose(*gradients, rtol=0, atol=1e-14)


def test_the_matrices_are_made_on_the_device():
    with no_transfers():
        assert averaging_matrix(32, 7, torch.empty(0, device=META)).device == META


def test_elsewhere_it_is_the_operator_of_torch():
    inputs = torch.randn(2, 3, 6, 6, requires_grad=True)
    assert torch.equal(AdaptiveAvgPool2d((2, 3))(inputs), nn.AdaptiveAvgPool2d((2, 3))(inputs))


def test_no_module_of_altprop_uses_the_operator_without_a_deterministic_kernel():
    """A pooling to one value is a mean, which has one."""
    for path in Path(altprop.__file__).parent.rglob("*.py"):
        sizes = re.findall(r"nn\.AdaptiveAvgPool2d\((.*?)\)", path.read_text())
        assert all(size == "1" for size in sizes) or path.name == "pooling.py", path
