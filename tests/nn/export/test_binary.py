from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from altprop.nn.export.binary import load_packed, pack_signs, plain_state, save_packed, save_plain, unpack_signs
from altprop.nn.weights.base import Dense
from altprop.nn.weights.binary.base import Binary
from altprop.nn.weights.binary.iterative import IterativeBinary
from tests.nn.weights.binary.driver import Driver, batches, latents, network


@given(seed=st.integers(0, 1000), rows=st.integers(1, 9), columns=st.integers(1, 9), low=st.sampled_from([-1, 0]))
def test_packing_signs_is_exact(seed, rows, columns, low):
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(-1, 2, (rows, columns), generator=generator).float()
    if low == 0:
        signs[signs == 0] = 1.0
    bits, zeros = pack_signs(signs)
    assert bits.dtype == torch.uint8
    assert len(bits) == (signs.numel() + 7) // 8
    assert torch.equal(unpack_signs(bits, zeros, (rows, columns)), signs)


def float32_batches(epoch):
    return batches(epoch, torch.float32)


def trained(rule):
    driver = Driver(rule, network(dtype=torch.float32), batches=float32_batches)
    driver.epoch(0)
    return driver


@pytest.mark.parametrize("scale", ["none", "layer", "channel"])
@pytest.mark.parametrize("rule", ["binary", "layer"])
def test_exported_files_give_the_same_scores(tmp_path, rule, scale):
    driver = trained(Binary(scale=scale) if rule == "binary" else IterativeBinary(epochs_per_layer=9, scale=scale))
    with torch.no_grad():
        next(latents(driver.model))[1][0, :3] = 0.0
    packed, plain = tmp_path / "packed.safetensors", tmp_path / "float.safetensors"
    sizes = save_packed(driver.model, packed), save_plain(driver.model, plain)
    assert sizes == (packed.stat().st_size, plain.stat().st_size)
    inputs = float32_batches(8)[0][0]
    expected = driver.scores(inputs)
    for state in (load_packed(packed), load_file(plain)):
        model = network(seed=3, dtype=torch.float32)
        model.load_state_dict(state)
        with torch.no_grad():
            assert torch.equal(model.eval()(inputs), expected)


def test_exported_plain_weights_are_signs():
    driver = trained(Binary())
    state = plain_state(driver.model)
    assert set(state["features.0.linear.weight"].unique().tolist()) == {-1.0, 1.0}
    assert not any("parametrizations" in name for name in state)


def test_packed_files_have_one_bit_per_weight(tmp_path):
    wide = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 8000), torch.nn.Linear(8000, 4))
    driver = Driver(Binary(), wide, batches=float32_batches)
    driver.epoch(0)
    weights, biases = 9 * 8000 + 8000 * 4, 8000 + 4
    size = save_packed(driver.model, tmp_path / "packed.safetensors")
    assert weights / 8 + 4 * biases <= size <= weights / 8 + 4 * biases + 1000


def test_other_files_and_networks_raise(tmp_path):
    with pytest.raises(ValueError, match="no layer"):
        save_packed(trained(Dense()).model, tmp_path / "packed.safetensors")
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"123")
    with pytest.raises(ValueError, match="not a safetensors"):
        load_packed(other)
    save_file({"weight": torch.zeros(2)}, other)
    with pytest.raises(ValueError, match="not contain a packed"):
        load_packed(other)
