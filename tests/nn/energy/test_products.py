"""Products by oneDNN are those of torch, as exact, and only where they pay off."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from altprop.nn.energy import products
from altprop.nn.energy.products import fixed_product, outer_products, product
from altprop.training.cost import FlopCounter

SIZE = (50, 784, 512)
"""Rows, inputs and outputs."""


def matrices(rows: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    return draw(rows, inputs), draw(outputs, inputs) - 0.5, draw(outputs)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of parts of every product by oneDNN."""
    counted: list[int] = []
    summed = products._summed

    def count(rows: list[Tensor], *rest: object, **options: object) -> Tensor:
        counted.append(len(rows))
        return summed(rows, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(products, "_summed", count)
    return counted


@pytest.mark.skipif(not products.ONEDNN, reason="needs oneDNN")
@pytest.mark.parametrize(("size", "parts"), [(SIZE, 4), ((64, 3072, 130), 16), ((7, 401, 1024), 3)], ids=str)
def test_products_are_as_exact_as_those_of_torch(size: tuple[int, int, int], parts: int, calls: list[int]) -> None:
    rows, weight, bias = matrices(*size)
    exact = rows.double() @ weight.double().t() + bias.double()
    with FlopCounter() as counted:
        results = product(rows, weight, bias), product(rows, weight) + bias, fixed_product(weight, bias, len(rows))(rows)
    assert counted.flops == 3 * 2 * size[0] * size[1] * size[2]
    assert calls == [parts] * 3
    plain = torch.nn.functional.linear(rows, weight, bias)
    for result in results:
        assert result.shape == exact.shape
        assert (result - exact).norm() < 1.06 * (plain - exact).norm()


@pytest.mark.skipif(not products.ONEDNN, reason="needs oneDNN")
@pytest.mark.parametrize("batch", [50, 401])
def test_outer_products_are_summed_over_the_batch(batch: int, calls: list[int]) -> None:
    _, below, _ = matrices(1, 300, batch)
    above = below[:, :128] * 0.7
    start = torch.rand(128, 300, generator=torch.Generator().manual_seed(1))
    exact = above.double().t() @ below.double()
    parts = -(-batch // products.LONGEST_SUM)
    for result, truth in (
        (outer_products(above, below), exact),
        (outer_products(above, below, start.clone()), exact + start.double()),
        (outer_products(above.t().contiguous().t(), below.t().contiguous().t()), exact),
    ):
        assert (result - truth).norm() < 4e-7 * truth.norm()
    assert calls == [parts] * 3


@pytest.mark.parametrize("reason", ["small", "double", "switched off"])
def test_other_products_are_those_of_torch_bit_for_bit(reason: str, calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    rows, weight, bias = matrices(*((8, 784, 100) if reason == "small" else SIZE))
    if reason == "double":
        rows, weight, bias = rows.double(), weight.double(), bias.double()
    elif reason == "switched off":
        monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    result = product(rows, weight, bias)
    assert torch.equal(result, torch.nn.functional.linear(rows, weight, bias))
    out = torch.empty_like(weight)
    assert outer_products(result, rows, out=out) is out
    assert torch.equal(out, result.t() @ rows)
    assert torch.equal(outer_products(result, rows, out.clone()), out.addmm_(result.t(), rows))
    assert calls == []


def test_a_product_with_a_graph_is_differentiable() -> None:
    rows, weight, bias = matrices(*SIZE)
    product(rows, weight.requires_grad_(), bias).sum().backward()
    assert weight.grad is not None
    assert torch.allclose(weight.grad, rows.sum(dim=0).expand_as(weight))
