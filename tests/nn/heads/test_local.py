"""Local heads and their ensembles: published parameter counts, shapes and initial behavior."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from altprop.nn.heads.ensemble import ensemble_scores, ensemble_weights
from altprop.nn.heads.local import ConvHead, LocalHead, cnn_head, head_problems, mlp_head, mlp_sr_head
from altprop.problems import ConfigError


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("head", "shape", "classes", "count"),
    [
        (mlp_sr_head, (64, 32, 32), 10, 214_282),
        (mlp_sr_head, (128, 16, 16), 10, 846_346),
        (mlp_sr_head, (512, 8, 8), 10, 13_412_362),
        (mlp_sr_head, (32, 16, 16), 10, 54_922),
        (mlp_sr_head, (64, 224, 224), 1000, 468_712),
        (mlp_sr_head, (512, 14, 14), 1000, 15_440_872),
        (mlp_head, (128, 32, 32), 10, 796_426),
        (mlp_head, (256, 16, 16), 10, 3_165_706),
        (mlp_head, (512, 8, 8), 10, 12_622_858),
        (cnn_head, (128, 32, 32), 10, 300_810),
        (cnn_head, (256, 16, 16), 10, 1_191_434),
        (cnn_head, (512, 8, 8), 10, 4_742_154),
        (ConvHead, (128, 10, 10), 10, 1_230_986),
    ],
)
def test_published_parameter_counts(head, shape, classes, count) -> None:
    assert num_parameters(head(shape, classes)) == count


def test_the_two_layer_mlp_is_the_published_last_head() -> None:
    assert num_parameters(mlp_head((256, 8, 8), 10, mlp_layers=2)) == 2_114_058
    assert num_parameters(mlp_head((512, 8, 8), 10, mlp_layers=2)) == 8_422_410


def test_the_head_of_resnet_152_has_the_published_size() -> None:
    head = mlp_sr_head((1024, 14, 14), 1000, pooled_size=2)
    assert num_parameters(head) == 57_619_432
    assert head.reduce(torch.zeros(1, 1024, 14, 14)).shape[2:] == (2, 2)
    assert mlp_sr_head((16, 14, 14), 10).reduce(torch.zeros(1, 16, 14, 14)).shape[2:] == (4, 4)


@settings(max_examples=25, deadline=None)
@given(
    head=st.sampled_from([mlp_sr_head, mlp_head, cnn_head, ConvHead]),
    channels=st.integers(1, 4),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    classes=st.integers(2, 5),
)
def test_heads_accept_any_map(head, channels, height, width, classes) -> None:
    built = head((channels, height, width), classes)
    scores = built(torch.randn(2, channels, height, width))
    assert scores.shape == (2, classes)
    scores.sum().backward()


@pytest.mark.parametrize("head", [mlp_sr_head, mlp_head, cnn_head])
def test_heads_accept_flat_features(head) -> None:
    assert head((7,), 3)(torch.randn(4, 7)).shape == (4, 3)


def test_conv_head_raises_for_flat_features() -> None:
    with pytest.raises(ConfigError, match="algorithm/head=mlp"):
        ConvHead((7,), 3)


@pytest.mark.parametrize(("head", "used"), [(mlp_sr_head, False), (mlp_head, False), (cnn_head, True)])
def test_only_the_cnn_head_uses_the_norm_of_the_map(head, used: bool) -> None:
    built = head((4, 8, 8), 3)
    built(torch.randn(6, 4, 8, 8)).square().sum().backward()
    assert isinstance(built, LocalHead)
    assert built.map_norm is not None
    assert all((parameter.grad is not None) is used for parameter in built.map_norm.parameters())


def test_convolutions_have_the_configured_width() -> None:
    head = cnn_head((4, 8, 8), 3, conv_layers=1, mlp_layers=3, width=6)
    assert [module.out_channels for module in head.modules() if isinstance(module, nn.Conv2d)] == [6]
    assert head.classifier[-1].in_features == 24
    assert head(torch.randn(2, 4, 8, 8)).shape == (2, 3)


@pytest.mark.parametrize(("channels", "width"), [(128, 256), (256, 512), (512, 1024)])
def test_widen_reproduces_the_heads_of_the_published_script(channels: int, width: int) -> None:
    """Section 8: width_aux 256 and prog on the network that begins with 128 channels; the 256 double with the blocks."""
    head = cnn_head((channels, 4, 4), 3, conv_layers=2, mlp_layers=0, widen=2.0)
    assert [module.out_channels for module in head.modules() if isinstance(module, nn.Conv2d)] == [width, width]
    assert head(torch.randn(2, channels, 4, 4)).shape == (2, 3)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"conv_layers": -1}, "conv_layers"),
        ({"mlp_layers": -1}, "mlp_layers"),
        ({"pooled_size": 0}, "pooled_size"),
        ({"width": 0}, "width"),
        ({"widen": 0.0}, "widen"),
        ({"widen": 2.0, "width": 64}, "widen"),
        ({"kernel_size": 4}, "kernel_size"),
        ({"kernel_size": -1}, "kernel_size"),
    ],
)
def test_impossible_options_are_problems(config, name: str) -> None:
    assert [problem.key for problem in head_problems(config)] == [f"algorithm.head.{name}"]
    assert not list(head_problems({"conv_layers": 0, "mlp_layers": 0, "width": None, "pooled_size": None, "widen": 2.0}))


def test_pooling_windows_overlap_if_the_side_is_not_divisible() -> None:
    """Window i of r covers [floor(i S / r), ceil((i + 1) S / r)); the windows of 14 -> 4 overlap."""
    head = mlp_head((1, 14, 14), 2)
    column = torch.arange(14.0).reshape(1, 1, 14, 1).expand(1, 1, 14, 14)
    pooled = head.reduce(column)[0, 0, :, 0]
    windows = [range(i * 14 // 4, -(-(i + 1) * 14 // 4)) for i in range(4)]
    assert torch.allclose(pooled, torch.tensor([sum(window) / len(window) for window in windows]))


def test_conv_head_starts_with_the_same_scores_for_all_samples() -> None:
    """The last convolution's weight is zero, so that it and the classifier get a gradient, but nothing below them."""
    torch.manual_seed(0)
    head = ConvHead((6, 5, 5), 3).double()
    features = torch.randn(4, 6, 5, 5, dtype=torch.float64, requires_grad=True)
    maps = head.convolutions(features)
    assert torch.equal(maps, maps[:1, :, :1, :1].expand_as(maps))
    assert maps.abs().max() > 0
    nn.functional.cross_entropy(head(features), torch.tensor([0, 1, 2, 0])).backward()
    assert features.grad is not None
    assert not features.grad.any()
    first, last = head.convolutions[0], head.convolutions[-1]
    assert not first.weight.grad.any()
    assert last.weight.grad.any()
    assert head.classifier.weight.grad.any()


def test_with_zero_bias_the_chain_starts_as_zero() -> None:
    head = ConvHead((6, 5, 5), 3, zero_bias=True)
    assert not head.convolutions(torch.randn(2, 6, 5, 5)).any()


@torch.no_grad()
def test_initial_values() -> None:
    torch.manual_seed(0)
    vgg = mlp_sr_head((16, 8, 8), 10, init="vgg")
    linear = [module for module in vgg.modules() if isinstance(module, nn.Linear)]
    assert all(not module.bias.any() for module in linear)
    assert float(linear[0].weight.std()) == pytest.approx(0.01, rel=0.05)
    convolution = vgg.convolutions[0]
    assert float(convolution.weight.std()) == pytest.approx((2 / 16) ** 0.5, rel=0.15)
    norms = [module for module in vgg.modules() if isinstance(module, nn.BatchNorm1d)]
    assert all(bool((module.weight == 1).all()) for module in norms)
    uniform = mlp_sr_head((16, 8, 8), 10, batch_norm_init="uniform")
    weights = torch.cat([module.weight for module in uniform.modules() if isinstance(module, nn.BatchNorm1d)])
    assert 0.4 < float(weights.mean()) < 0.6
    assert float(weights.min()) >= 0


def scores(*shape: int) -> st.SearchStrategy[torch.Tensor]:
    return st.integers(0, 1000).map(lambda seed: torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double())


@given(count=st.integers(1, 12))
def test_every_head_has_twice_the_weight_of_the_previous_one(count: int) -> None:
    weights = ensemble_weights(count, dtype=torch.float64)
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-14)
    assert torch.allclose(weights[1:], 2 * weights[:-1], rtol=1e-14)


@given(one=scores(3, 4), average=st.sampled_from(["probabilities", "logits"]))
def test_the_ensemble_of_one_head_is_that_head(one, average) -> None:
    ensemble = ensemble_scores([one], average)
    assert torch.allclose(ensemble.softmax(1), one.softmax(1))


@given(one=scores(3, 4), other=scores(3, 4))
def test_ensembles_average_logits_or_probabilities(one, other) -> None:
    assert torch.allclose(ensemble_scores([one, other], "logits"), one / 3 + 2 * other / 3, atol=1e-6)
    mean = one.softmax(1) / 3 + 2 * other.softmax(1) / 3
    assert torch.allclose(ensemble_scores([one, other], "probabilities").exp(), mean, atol=1e-6)
