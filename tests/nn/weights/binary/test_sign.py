"""The sign of a latent weight and its straight-through gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize

from altprop.nn.weights.binary.sign import Binarization, binarized, magnitude, sign

SHAPES = [(5, 4), (3, 2, 3, 3)]


def weights(shape, seed=0, zeros=True):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    if zeros:
        weight.flatten()[::4] = 0.0
    return weight


def test_sign_of_zero():
    values = torch.tensor([-2.0, -0.0, 0.0, 1e-40, 3.0])
    assert sign(values).tolist() == [-1, 0, 0, 1, 1]
    assert sign(values, zero=1).tolist() == [-1, 1, 1, 1, 1]


@given(factor=st.floats(1e-3, 1e3), seed=st.integers(0, 100), zero=st.sampled_from([0, 1]))
@settings(max_examples=30, deadline=None)
def test_signs_do_not_depend_on_scale(factor, seed, zero):
    weight = weights((4, 3), seed)
    assert torch.equal(sign(weight * factor, zero), sign(weight, zero))


@given(factor=st.floats(1e-3, 1e3), seed=st.integers(0, 100), scale=st.sampled_from(["layer", "channel"]))
@settings(max_examples=30, deadline=None)
def test_scaled_weights_follow_scale_and_keep_the_mean_magnitude(factor, seed, scale):
    weight = weights((4, 3, 2, 2), seed, zeros=False)
    torch.testing.assert_close(binarized(weight * factor, 0, scale), factor * binarized(weight, 0, scale))
    torch.testing.assert_close(magnitude(binarized(weight, 0, scale), scale), magnitude(weight, scale))


@pytest.mark.parametrize("shape", SHAPES)
def test_layer_and_channel_scale(shape):
    weight = weights(shape)
    layer, channel = binarized(weight, 0, "layer"), binarized(weight, 0, "channel")
    for row in range(shape[0]):
        assert channel[row].abs().max() == pytest.approx(float(weight[row].abs().mean()))
    assert layer.abs().max() == pytest.approx(float(weight.abs().mean()))


def layers():
    torch.manual_seed(0)
    return [
        (nn.Linear(6, 5).double(), torch.randn(7, 6, dtype=torch.float64)),
        (nn.Conv2d(3, 4, 3, stride=2, padding=1).double(), torch.randn(2, 3, 6, 6, dtype=torch.float64)),
    ]


def binary_layer(layer, scale="none", zero=0):
    """Return a copy of ``layer`` with a binary parametrization."""
    copy = type(layer)(**constructor(layer)).double()
    copy.load_state_dict(layer.state_dict())
    binarization = Binarization(zero, scale)
    binarization.binary = True
    parametrize.register_parametrization(copy, "weight", binarization, unsafe=True)
    return copy


def constructor(layer):
    if isinstance(layer, nn.Linear):
        return {"in_features": layer.in_features, "out_features": layer.out_features}
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding")
    return {name: getattr(layer, name) for name in names}


@pytest.mark.parametrize("case", [0, 1])
@pytest.mark.parametrize("scale", ["none", "layer", "channel"])
def test_straight_through_gradient_is_that_of_a_float_layer_with_the_signs(case, scale):
    """Section 10, check 2: weight and input gradients, element by element."""
    layer, inputs = layers()[case]
    binary = binary_layer(layer, scale)
    with torch.no_grad():
        layer.weight.copy_(binarized(layer.weight, 0, scale))
    ours, theirs = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    binary(ours).square().sum().backward()
    layer(theirs).square().sum().backward()
    assert torch.equal(binary.parametrizations.weight.original.grad, layer.weight.grad)
    assert torch.equal(ours.grad, theirs.grad)
    assert torch.equal(binary.bias.grad, layer.bias.grad)


@pytest.mark.parametrize("case", [0, 1])
def test_positive_factors_change_neither_outputs_nor_gradients(case):
    """Section 10, check 3."""
    layer, inputs = layers()[case]
    results = []
    for factor in (1.0, 1e-6, 37.5):
        binary = binary_layer(layer)
        latent = binary.parametrizations.weight.original
        with torch.no_grad():
            latent.mul_(factor)
        outputs = binary(inputs)
        outputs.square().sum().backward()
        results.append((outputs.detach(), latent.grad, binary.bias.grad))
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


def test_output_is_a_sum_of_inputs_with_signs():
    """Section 10, check 4: zeros contribute nothing."""
    layer, inputs = layers()[0]
    with torch.no_grad():
        layer.weight[:, 1] = 0.0
        layer.weight[0, 0] = -0.0
    binary = binary_layer(layer)
    expected = torch.stack(
        [
            torch.stack([x[row > 0].sum() - x[row < 0].sum() for row in layer.weight.detach()]) + layer.bias.detach()
            for x in inputs
        ]
    )
    torch.testing.assert_close(binary(inputs).detach(), expected, rtol=0, atol=1e-12)


def test_float_layer_is_the_layer_itself():
    layer, inputs = layers()[0]
    binary = binary_layer(layer)
    binary.parametrizations.weight[0].binary = False
    assert binary.weight is binary.parametrizations.weight.original
    assert torch.equal(binary(inputs), layer(inputs))


@pytest.mark.parametrize("zero", [0, 1])
@pytest.mark.parametrize("scale", ["none", "layer", "channel"])
def test_effective_weights_are_not_written_in_place(zero, scale):
    """torch.compile of PyTorch 2.11 silently drops the gradient below an autograd.Function that returns such a tensor."""
    assert binarized(weights((5, 4)), zero, scale)._version == 0
