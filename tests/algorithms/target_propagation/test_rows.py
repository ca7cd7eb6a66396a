"""Every row of the paper's table resolves to the settings in its specification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from altprop.algorithms.schedule import RunningSchedule, Schedule
from altprop.config.resolvers import register_resolvers
from altprop.config.schema import register_schema

CONF = Path(__file__).parents[3] / "conf"
UNITS = {"step": "SignStep", "q2": "Staircase", "q3": "Staircase", "relu": "ReLU", "threshrelu": "SaturatedReLU"}
STEPS = {"q2": 3, "q3": 5}
RULES = {"sh": "SoftHinge", "sste": "SaturatedStraightThrough"}
NETS: dict[str, tuple[str, bool | None, str, float, float, int, tuple[int, int], int]] = {
    "cifar10_convnet4": ("ConvNet4", False, "Adam", 2.5e-4, 5e-4, 300, (200, 250), 64),
    "cifar10_convnet8": ("ConvNet8", True, "Adam", 1e-3, 5e-4, 300, (200, 250), 64),
    "imagenet_alexnet": ("AlexNetDoReFa", True, "Adam", 1e-4, 5e-4, 80, (56, 64), 128),
    "imagenet_resnet18": ("ResNet", None, "SGD", 0.1, 1e-4, 90, (30, 60), 256),
}
"""Model, batch norm, optimizer, initial rate, weight decay with ReLU, epochs, 1-based milestones, batch size."""
DECAY = {
    ("imagenet_alexnet", "step"): 5e-6,
    ("imagenet_alexnet", "q2"): 5e-5,
    ("imagenet_resnet18", "step"): 5e-7,
    ("imagenet_resnet18", "q3"): 1e-5,
}


def rows() -> list[tuple[str, str, str | None]]:
    table: list[tuple[str, str, str | None]] = []
    for net in NETS:
        quantized = "q3" if net == "imagenet_resnet18" else "q2"
        table += [(net, units, rule) for units in ("step", quantized) for rule in RULES]
        table += [(net, units, None) for units in ("relu", "threshrelu")]
    return table


def resolved(experiment: str, *overrides: str) -> dict[str, Any]:
    register_resolvers()
    register_schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=[f"experiment=ftprop/{experiment}", *overrides])
    for key in ("dataset", "model", "algorithm", "optimizer", "schedule", "trainer", "name", "paper"):
        assert key in config
    keys = ("dataset", "model", "algorithm", "optimizer", "schedule", "trainer", "name", "paper")
    plain = OmegaConf.to_container(OmegaConf.masked_copy(config, keys), resolve=True)
    assert isinstance(plain, dict)
    return plain


def kind(node: dict[str, Any]) -> str:
    return str(node["_target_"]).rpartition(".")[2]


def test_there_are_24_rows_and_quick_variants() -> None:
    files = {path.stem for path in (CONF / "experiment" / "ftprop").glob("*.yaml")}
    names = {"_".join(part for part in row if part) for row in rows()}
    assert len(names) == 24
    assert {name for name in files if not name.startswith("quick")} == names
    units = {"quick_step_sh", "quick_step_sste", "quick_q2_sh", "quick_q2_sste", "quick_relu", "quick_threshrelu"}
    assert {name for name in files if name.startswith("quick")} == units | {"quick", "quick_target_search"}


@pytest.mark.parametrize(("net", "units", "rule"), rows())
def test_row(net: str, units: str, rule: str | None) -> None:
    name = "_".join(part for part in (net, units, rule) if part)
    config = resolved(name)
    model, batch_norm, optimizer, rate, decay, epochs, milestones, batch = NETS[net]
    assert config["name"] == f"ftprop/{name}"
    assert kind(config["model"]) == model
    assert config["model"].get("batch_norm") == batch_norm
    assert config["model"]["batch_norm_init"] == ("uniform" if net in ("cifar10_convnet8", "imagenet_alexnet") else "ones")
    assert kind(config["model"]["units"]) == UNITS[units]
    assert config["model"]["units"].get("steps") == STEPS.get(units)
    estimator = config["algorithm"]["estimator"]
    assert kind(config["algorithm"]) == ("TargetPropagation" if rule else "Backprop")
    assert (kind(estimator) if estimator else None) == (RULES[rule] if rule else None)
    assert estimator is None or estimator["scaled"] is True
    assert kind(config["algorithm"]["loss"]) == "CrossEntropyLoss"
    assert kind(config["optimizer"]) == optimizer
    assert config["optimizer"]["lr"] == rate
    assert config["optimizer"]["weight_decay"] == DECAY.get((net, units), decay)
    if optimizer == "SGD":
        assert (config["optimizer"]["momentum"], config["optimizer"]["nesterov"]) == (0.9, False)
    else:
        assert (config["optimizer"]["betas"], config["optimizer"]["eps"]) == ([0.9, 0.999], 1e-8)
    assert config["trainer"]["duration"] == f"{epochs}ep"
    assert config["trainer"]["precision"] == "fp32"
    assert config["trainer"]["channels_last"] is False  # rounding flips hard units
    assert config["dataset"]["batch_size"] == batch
    assert config["dataset"]["validation"]["size"] == 0
    assert config["dataset"]["drop_last"] is False
    if net.startswith("cifar10"):
        augmentation = config["dataset"]["augmentation"]
        assert (augmentation["padding"], augmentation["padding_mode"], augmentation["flip"]) == (4, "zeros", 0.5)
        assert config["dataset"]["mean"] == [0.49139968, 0.48215841, 0.44653091]
        assert config["dataset"]["std"] == [0.24703223, 0.24348513, 0.26158784]
    else:
        crops = config["dataset"]["crops"]
        assert (crops["train"], crops["flip"], crops["size"], crops["resize"]) == ("random_crop", 0.5, 224, 256)
        assert config["dataset"]["mean"] == [0.485, 0.456, 0.406]
        assert config["dataset"]["std"] == [0.229, 0.224, 0.225]
    assert config["paper"]["value"] is None
    assert rates(config, rate) == {
        milestones[0] - 1: pytest.approx(rate),
        milestones[0]: pytest.approx(0.1 * rate),
        milestones[1] - 1: pytest.approx(0.1 * rate),
        milestones[1]: pytest.approx(0.01 * rate),
    }


def rates(config: dict[str, Any], rate: float) -> dict[int, float]:
    """Return the learning rate in the 1-based epochs around the milestones."""
    schedule = instantiate(config["schedule"], _convert_="all")
    assert isinstance(schedule, Schedule)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    assert schedule.interval == "epoch"
    assert schedule.scheduler is not None
    running = RunningSchedule(schedule.scheduler(optimizer), schedule.interval)
    seen = {}
    milestones = config["schedule"]["scheduler"]["milestones"]
    for epoch in range(1, milestones[1] + 2):
        seen[epoch] = optimizer.param_groups[0]["lr"]
        optimizer.step()
        running.epoch_end()
    return {epoch: seen[epoch] for milestone in milestones for epoch in (milestone, milestone + 1)}


@pytest.mark.parametrize("name", ["quick_step_sh", "quick_q2_sste", "quick_threshrelu"])
def test_quick_variants_use_the_embedded_digits(name: str) -> None:
    config = resolved(name)
    assert kind(config["dataset"]) == "MNISTSample"
    assert config["trainer"]["duration"] == "3ep"
