"""The iterative experiments match the specification: number of runs, lengths, schedules, epoch ends (sections 5 and 6)."""

from __future__ import annotations

from math import prod

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from altprop.algorithms.context import Context
from altprop.config.compose import config_loader
from altprop.config.project import ROOT
from altprop.nn.weights.binary.base import Binary
from altprop.nn.weights.binary.iterative import IterativeBinary

NETS = ("300", "784", "vgg5", "vgg9", "resnet20")
LENGTHS = {"300": (3, 150, 450, 150), "784": (3, 150, 450, 150), "vgg5": (5, 150, 750, 200), "vgg9": (9, 150, 1350, 450)}
LENGTHS |= {"resnet20": (20, 50, 1200, 300), "resnet21": (21, 2, 67, 20)}
"""Layers, epochs per layer, epochs, epochs of a sensitivity run."""
RUNS = {"300": 19, "784": 19, "vgg5": 19, "vgg9": 23, "resnet20": 34, "resnet21": 25}


@pytest.fixture(scope="module")
def compose():
    with config_loader() as composer:
        configs = {}

        def experiment(name):
            if name not in configs:
                configs[name] = composer.compose("train", [f"experiment=iterative/{name}"])
            return configs[name]

        yield experiment


def number_of_jobs(name):
    params = OmegaConf.load(ROOT / "sweeps" / "iterative" / f"{name}.yaml").hydra.sweeper.params

    def values(text):
        # commas inside a list do not separate values
        return (
            str(text).count(",") + 1 if "[" not in str(text) else str(text).count("],") + str(text).split(",[")[0].count(",") + 2
        )

    return prod(values(value) for value in params.values())


@pytest.mark.parametrize("net", RUNS)
def test_sweeps_have_the_runs_of_the_paper(net):
    names = [file.stem for file in (ROOT / "sweeps" / "iterative").glob(f"{net}_*.yaml")]
    assert sum(number_of_jobs(name) for name in names) == RUNS[net]


def test_there_are_139_runs():
    assert sum(RUNS.values()) == 139


@pytest.mark.parametrize("net", LENGTHS)
def test_lengths_and_rules(net, compose):
    layers, each, epochs, sensitivity = LENGTHS[net]
    phases = ("full",) if net == "resnet21" else ("hp", "full")
    legacy = net != "resnet21"
    for phase in phases:
        for mode in ("float", "binary", "layer"):
            config = compose(f"{net}_{phase}_{mode}")
            assert config.trainer.duration == f"{epochs}ep"
            rule = instantiate(config.algorithm.weights)
            assert isinstance(rule, Binary) == (mode != "float")
            if mode != "float":
                assert (rule.legacy, rule.sign_zero, rule.clip, rule.scale) == (legacy, 0, None, "none")
            if mode == "layer":
                assert isinstance(rule, IterativeBinary)
                assert (rule.epochs_per_layer, rule.order, rule.reverse) == (each, "forward", False)
                assert layers * each <= epochs
    config = compose(f"{net}_sens")
    rule = instantiate(config.algorithm.weights)
    assert (config.trainer.duration, rule.epochs_per_layer, rule.legacy) == (f"{sensitivity}ep", sensitivity, legacy)


@pytest.mark.parametrize("net", NETS)
def test_data_and_selection(net, compose):
    for phase in ("hp_layer", "full_layer", "sens"):
        config = compose(f"{net}_{phase}")
        mnist = net in ("300", "784")
        assert config.seed == 316
        assert config.dataset.validation.size == 5000
        assert config.dataset.validation.how == ("tail" if mnist else "random")
        assert config.dataset.batch_size == (128 if net == "resnet20" else 100)
        assert config.dataset.augmentation.padding == (0 if mnist else 4)
        assert config.dataset.augmentation.flip == (0.0 if mnist else 0.5)
        assert list(config.dataset.std) == ([0.3081] if mnist else [0.2023, 0.1994, 0.2010])
        full = phase == "full_layer"
        assert (config.trainer.select_on, config.trainer.evaluate_train) == (("last", True) if full else ("auto", False))
        assert config.optimizer.lr == 0.1


def rates(config):
    """The learning rate of every epoch."""
    epochs = int(config.trainer.duration.removesuffix("ep"))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.optimizer.lr)
    context = Context(1, epochs, torch.device("cpu"), 0, (1, 1, 1), 2, 1)
    schedule = instantiate(config.schedule).build(optimizer, context)
    values = []
    for _ in range(epochs):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.epoch_end()
    return values


@pytest.mark.parametrize(
    ("name", "lengths"),
    [
        ("300_full_layer", [450]),
        ("vgg9_hp_binary", [1350]),
        ("resnet20_full_layer", [999, 100, 101]),  # 1-based: 1-999, 1000-1099, 1100-1200
        ("resnet20_hp_float", [999, 100, 101]),
        ("resnet20_sens", [199, 50, 51]),
        ("resnet21_full_layer", [42, 15, 10]),  # 0-based: 0-41, 42-56, 57-66
        ("resnet21_sens", [20]),
    ],
)
def test_learning_rates(name, lengths, compose):
    """Section 10, check 10, and section 5.3."""
    config = compose(name)
    first = 0.01 if name.startswith("resnet21") else 0.1
    expected = [first * 0.1**step for step, length in enumerate(lengths) for _ in range(length)]
    assert rates(config) == pytest.approx(expected)


@pytest.mark.parametrize("net", ["resnet20", "resnet21"])
def test_residual_networks_use_sgd(net, compose):
    optimizer = compose(f"{net}_full_layer").optimizer
    assert optimizer._target_ == "torch.optim.SGD"
    assert (optimizer.momentum, optimizer.weight_decay, optimizer.nesterov, optimizer.dampening) == (0.9, 1e-4, False, 0.0)
