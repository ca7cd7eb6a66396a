from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from altprop.nn.export.plain import without_parametrizations
from altprop.nn.export.sparse import compress_rows, expand_rows, load_sparse, pack_mask, save_sparse, unpack_mask
from altprop.nn.export.sparse_inference import SparseLinear, with_sparse_kernels
from altprop.nn.weights.sparse.static import StaticSparse
from tests.nn.weights.training import Trained, batch, small_mlp, small_wrn


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_packing_rows_and_masks_is_exact(rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    mask = torch.randint(2, (rows, columns), generator=generator).float()
    parts = compress_rows(weight, mask)
    assert len(parts["values"]) == mask.sum()
    assert torch.equal(expand_rows(parts, (rows, columns)), weight * mask)
    bits = pack_mask(mask)
    assert len(bits) == (rows * columns + 7) // 8
    assert torch.equal(unpack_mask(bits, (rows, columns)), mask.bool())


@pytest.mark.parametrize("build", [small_mlp, small_wrn])
@pytest.mark.parametrize("granularity", [1, 2, 3, 4])
def test_exported_files_give_the_same_predictions(build, granularity, tmp_path):
    sparsity = 0.5 if granularity == 1 else 0.8  # so that each layer has an active filter
    trained = Trained(StaticSparse(sparsity=sparsity, granularity=granularity), build(torch.float32)).steps(5)
    path = tmp_path / "sparse.safetensors"
    size = save_sparse(trained.model, path)
    assert size == path.stat().st_size
    model = build(torch.float32)
    model.load_state_dict(load_sparse(path))
    inputs, _ = batch(99, torch.float32)
    assert torch.equal(model.eval()(inputs), trained.model.eval()(inputs))


def test_file_size_is_proportional_to_the_number_of_weights(tmp_path):
    sizes = []
    for sparsity in (0.5, 0.9):
        trained = Trained(StaticSparse(sparsity=sparsity, dense=[]), small_mlp(torch.float32))
        sizes.append(save_sparse(trained.model, tmp_path / "x.safetensors"))
    weights = 12 * 16 + 8 * 12 + 5 * 8
    assert sizes[0] - sizes[1] == pytest.approx(0.4 * weights * 6, abs=64)


def test_other_files_and_networks_raise(tmp_path):
    with pytest.raises(ValueError, match="no layer"):
        save_sparse(small_mlp(), tmp_path / "x")
    (tmp_path / "x").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not a safetensors"):
        load_sparse(tmp_path / "x")


@pytest.mark.parametrize("bias", [True, False])
def test_sparse_linear_equals_the_dense_layer(bias):
    layer = torch.nn.Linear(20, 7, bias=bias)
    with torch.no_grad():
        layer.weight.mul_(torch.rand(7, 20) < 0.3)
        inputs = torch.randn(5, 20)
        torch.testing.assert_close(SparseLinear(layer.weight, layer.bias)(inputs), layer(inputs))


def test_a_model_with_sparse_kernels_gives_the_same_predictions():
    trained = Trained(StaticSparse(sparsity=0.9, dense=[]), small_mlp(torch.float32)).steps(3)
    inputs, _ = batch(5, torch.float32)
    faster = with_sparse_kernels(trained.model, inputs, repeats=1)
    expected = trained.model.eval()(inputs)
    torch.testing.assert_close(faster(inputs), expected)
    plain = without_parametrizations(trained.model)
    assert torch.equal(plain.eval()(inputs), expected)
    assert not any("parametrizations" in name for name in plain.state_dict())
    assert any("parametrizations" in name for name in trained.model.state_dict())
