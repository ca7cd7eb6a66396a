"""Cutting models into blocks: no layer is lost, and the published cuts have the published sizes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from altprop.algorithms.blocks import BlockAlgorithm, cut, cut_positions, output_shapes
from altprop.algorithms.delayed.gradients import DelayedGradients
from altprop.algorithms.greedy.asynchronous import AsynchronousGreedy
from altprop.algorithms.greedy.decoupled import DecoupledGreedy
from altprop.algorithms.greedy.sequential import SequentialGreedy
from altprop.algorithms.synthetic.gradients import SyntheticGradients
from altprop.models.cifar_resnet import CifarResNet
from altprop.models.mlp import MLP
from altprop.models.resnet import ResNet
from altprop.models.vgg import VGG
from altprop.nn.heads.local import mlp_sr_head
from altprop.problems import ConfigError
from altprop.testing import SMALL_MLP, Case, Training
from altprop.testing.examples import LINEAR_HEAD
from altprop.testing.problem import STEPS_PER_EPOCH


def counts(blocks: list[nn.Sequential]) -> list[int]:
    return [sum(parameter.numel() for parameter in block.parameters()) for block in blocks]


@given(layers=st.integers(1, 40), size=st.integers(1, 12))
def test_no_layer_is_lost_and_the_remainder_is_a_block(layers: int, size: int) -> None:
    positions = cut_positions(layers, size, None)
    widths = [later - earlier for earlier, later in pairwise(positions)]
    assert sum(widths) == layers
    assert all(width == size for width in widths[:-1])
    assert 1 <= widths[-1] <= size


@given(layers=st.integers(2, 40), data=st.data())
def test_cut_points_start_blocks(layers: int, data: st.DataObject) -> None:
    points = sorted(data.draw(st.sets(st.integers(1, layers - 1))))
    assert cut_positions(layers, 1, points) == [0, *points, layers]


@pytest.mark.parametrize("points", [[0], [6], [3, 2], [5, 5], [-1]])
def test_invalid_cut_points_are_refused(points: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"algorithm\.cut_points.*from 1 to 5"):
        cut_positions(5, 1, points)


@pytest.mark.parametrize("model", [nn.Linear(3, 2), MLP(hidden=(), units=nn.ReLU, input_shape=(1, 2, 2), num_classes=2)])
def test_models_without_blocks_are_refused(model: nn.Module) -> None:
    with pytest.raises(ConfigError, match="has no blocks"):
        cut(model, 1, None)


def test_output_shapes_do_not_change_the_model() -> None:
    model = CifarResNet(depth=8, units=nn.ReLU, input_shape=(3, 16, 16), num_classes=4).double()
    model.layer1.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    shapes = output_shapes(cut(model, 2, None), (3, 16, 16), torch.device("cpu"))
    assert shapes == [(16, 16, 16), (64, 4, 4)]
    assert model.training
    assert not model.layer1.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


IMAGENET = {"units": nn.ReLU, "input_shape": (3, 224, 224), "num_classes": 1000}
HEADS = {(64, 224): 468_712, (128, 112): 1_354_216, (256, 56): 4_378_600, (512, 28): 15_440_872, (512, 14): 15_440_872}
VGG_LAST = 123_642_856
VGG_SIZES = {13: [64, 64, 128, 128, 256, 256, 512, 512, 512, 512], 19: [64, 64, 128, 128, *[256] * 4, *[512] * 8]}
VGG_SIDES = {13: [224, 224, 112, 112, 56, 56, 28, 28, 14, 14], 19: [224, 224, 112, 112, *[56] * 4, *[28] * 4, *[14] * 4]}


@pytest.mark.parametrize(
    ("depth", "block_size", "blocks", "total"),
    [
        (13, 1, [1_920, 37_056, 74_112, 147_840, 295_680, 590_592, 1_181_184, *[2_360_832] * 3], 191_779_408),
        (13, 3, [113_088, 1_034_112, 5_902_848, 2_360_832], 154_227_424),
        (19, 4, [260_928, 2_067_456, 8_263_680, 9_443_328], 164_851_936),
        (19, 8, [2_328_384, 17_707_008], 148_056_848),
    ],
)
def test_published_cuts_of_vgg(depth, block_size, blocks, total) -> None:
    """Counted on the meta device. The heads have the sizes listed in the specification."""
    with torch.device("meta"):
        model = VGG(depth=depth, batch_norm=True, dropout=0.0, **IMAGENET)
        parts = cut(model, block_size, None)
        assert counts(parts) == blocks
        features, heads = torch.zeros(1, 3, 224, 224), []
        for index, part in enumerate(parts[:-1]):
            features = part.eval()(features)
            last = min((index + 1) * block_size, len(model.blocks)) - 1
            assert features.shape[1:] == (VGG_SIZES[depth][last], VGG_SIDES[depth][last], VGG_SIDES[depth][last])
            heads.append(mlp_sr_head(tuple(features.shape[1:]), 1000, init="vgg"))
    assert counts([model.head]) == [VGG_LAST]
    assert sum(counts(parts)) + sum(counts(heads)) + VGG_LAST == total
    for part, head in zip(parts, heads):
        convolution = [module for module in part.modules() if isinstance(module, nn.Conv2d)][-1]
        assert counts([head])[0] in {count for (channels, _), count in HEADS.items() if channels == convolution.out_channels}


def test_published_cut_of_resnet_152() -> None:
    with torch.device("meta"):
        model = ResNet(depth=152, **IMAGENET)
        parts = cut(model, 1, [26])
        assert len(model.blocks) == 51
        shape = tuple(parts[0].eval()(torch.zeros(1, 3, 224, 224)).shape[1:])
        head = mlp_sr_head(shape, 1000, pooled_size=2)
    assert shape == (1024, 14, 14)
    assert counts(parts) == [18_601_024, 39_542_784]
    assert counts([model.head]) == [2_049_000]
    assert sum(counts([*parts, head, model.head])) == 117_812_240


def test_published_cut_of_resnet_110() -> None:
    """58 entries with the stem in three, cut at 29: 26 residual blocks after the stem."""
    build = partial(CifarResNet, depth=110, units=nn.ReLU, input_shape=(3, 32, 32), num_classes=10)
    with torch.device("meta"):
        model = build()
        parts = cut(model, 1, [27])
        shape = tuple(parts[0].eval()(torch.zeros(1, 3, 32, 32)).shape[1:])
        head = mlp_sr_head(shape, 10)
    assert shape == (32, 16, 16)
    assert counts([*parts, head, model.head]) == [228_432, 1_498_880, 54_922, 650]
    assert sum(counts([*parts, head, model.head])) == 1_782_884


@pytest.mark.parametrize(
    "make",
    [
        partial(DecoupledGreedy, head=LINEAR_HEAD),
        partial(SequentialGreedy, head=LINEAR_HEAD),
        partial(AsynchronousGreedy, head=LINEAR_HEAD, buffer_size=1),
        DelayedGradients,
        SyntheticGradients,
    ],
)
def test_the_last_cut_may_leave_only_pooling_and_the_classifier(make: Callable[..., BlockAlgorithm]) -> None:
    training = Training(Case(lambda weights: make(cut_points=[1, 2], weights=weights), SMALL_MLP, epochs=3))
    model = training.algorithm.model
    parameters = [value.detach().clone() for value in model.parameters()]
    training.run(training.context.total_epochs * STEPS_PER_EPOCH)
    assert not any(torch.equal(before, after) for before, after in zip(parameters, model.parameters()))
    resumed = Training(training.case).restore(training.state())
    assert resumed.algorithm.step == training.algorithm.step


def test_the_head_alone_is_a_block() -> None:
    model = MLP(hidden=(4,), units=nn.ReLU, input_shape=(1, 2, 2), num_classes=2)
    first, last = cut(model, 1, [1])
    assert counts([first, last]) == [counts(model.blocks)[0], 0]
