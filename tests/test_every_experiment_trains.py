"""Every experiment takes one training step and one evaluation, on noise in the shape of its data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from altprop.config.build import build_parts
from altprop.config.compose import Composer, config_loader
from altprop.config.plain import to_plain
from altprop.training.assembly import assemble
from altprop.training.evaluation import evaluate
from tests.config.catalog import EXPERIMENTS, without_hydra
from tests.synthetic import Noise

LARGE, SMALL = (3, 224, 224), (3, 64, 64)
SHAPES = {
    "MNIST": ((1, 28, 28), 10),
    "FashionMNIST": ((1, 28, 28), 10),
    "MNISTSample": ((1, 28, 28), 10),
    "Shapes": ((3, 32, 32), 10),
    "CIFAR10": ((3, 32, 32), 10),
    "CIFAR100": ((3, 32, 32), 100),
    "SVHN": ((3, 40, 40), 10),
    "ImageNet": (LARGE, 1000),
    "ImageFolder": ((3, 32, 32), 10),
}
SHORT_PHASES = {"free_steps": 4, "nudge_steps": 2, "differentiated_steps": 2}
"""Relaxations are long because they converge, which noise need not."""


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with config_loader() as composer:
        yield composer


def noise_for(config: Mapping[str, Any]) -> Noise:
    shape, classes = SHAPES[config["dataset"]["_target_"].rpartition(".")[2]]
    if shape == LARGE and config["model"]["_target_"].endswith("ResNet"):
        shape = SMALL
    return Noise(shape, classes)


def shortened(algorithm: Mapping[str, Any]) -> dict[str, Any]:
    """With short phases, and without other runs that weights, masks or an order would be taken from."""
    phases = {key: value for key, value in SHORT_PHASES.items() if key in algorithm}
    if not algorithm.get("weights"):
        return {**algorithm, **phases}
    alone = {key: None if str(key).endswith("_from") else value for key, value in algorithm["weights"].items()}
    if alone.get("order") == "from_sensitivity":
        alone |= {"order": "forward", "order_file": None}
    return {**algorithm, **phases, "weights": alone}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_one_step(name: str, composer: Composer) -> None:
    torch.set_num_threads(1)
    config, _ = to_plain(without_hydra(composer.compose("train", [f"experiment={name}"])))
    noise = noise_for(config)
    trainer = {**config["trainer"], "precision": "fp32"}  # half precision is emulated on a CPU
    algorithm = shortened(config["algorithm"])
    if "master_weights" in algorithm:
        algorithm["master_weights"] = False
    config = {**config, "algorithm": algorithm, "logger": None, "trainer": trainer}
    parts = build_parts(config)
    run = assemble(replace(parts, data_set=noise))
    run.algorithm.epoch_start(0)
    metrics = run.algorithm.train_step(*next(noise.batches()))
    assert all(torch.isfinite(value).all() for value in metrics.values()), metrics
    run.algorithm.epoch_end(0)
    result = evaluate(run.algorithm, noise)
    assert 0 <= result["accuracy"] <= 100
