from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from hydra.utils import get_class
from torch import nn

from altprop.models.base import FeedForward
from tests.models.feed_forward_suite import CONF, compose_model, compose_node


def is_feed_forward(name: str) -> bool:
    return issubclass(get_class(compose_node(f"model={name}")["_target_"]), FeedForward)


MODELS = [
    name for name in sorted(path.stem for path in (CONF / "model").glob("*.yaml")) if name != "other" and is_feed_forward(name)
]
UNITS = sorted(path.stem for path in (CONF / "model" / "units").glob("*.yaml"))
SHAPES: dict[str, tuple[int, int, int]] = {"alexnet_dorefa": (3, 64, 64)}
"""Input shapes of models that do not accept 3 x 32 x 32, the shape for all others."""


@pytest.mark.parametrize("name", MODELS)
def test_every_model_can_be_built_from_its_file(name):
    with torch.device("meta"):
        shape = SHAPES.get(name, (3, 32, 32))
        model = compose_model([f"model={name}"], input_shape=shape, num_classes=7)
        assert model(torch.empty(2, *shape)).shape == (2, 7)
    assert (model.input_shape, model.num_classes) == (shape, 7)


@pytest.mark.parametrize("name", MODELS)
def test_the_units_of_every_model_can_be_chosen(name):
    with torch.device("meta"):
        shape = SHAPES.get(name, (3, 32, 32))
        model = compose_model([f"model={name}", "model/units=gelu"], input_shape=shape, num_classes=7)
    kinds = {type(module) for module in model.modules()}
    assert nn.GELU in kinds
    assert nn.ReLU not in kinds


@pytest.mark.parametrize("name", MODELS)
def test_the_file_of_a_model_lists_all_its_options(name):
    """An option missing from the file could only be set with a leading +."""
    config = compose_node(f"model={name}")
    runtime = {"self", "input_shape", "num_classes"}
    options = set(inspect.signature(get_class(config["_target_"]).__init__).parameters) - runtime
    assert set(config) - {"_target_", "_partial_"} == options


@pytest.mark.parametrize("name", UNITS)
def test_units_are_elementwise(name):
    model = compose_model(["model=mlp", f"model/units={name}"], input_shape=(1, 4, 4), num_classes=3)
    units = model.blocks[0].units
    assert isinstance(units, nn.Module)
    assert units is not model.blocks[1].units
    inputs = torch.linspace(-3, 3, 13, dtype=torch.float64)
    torch.testing.assert_close(torch.stack([units(element) for element in inputs]), units(inputs))


def test_saturated_relu_is_clipped_at_one():
    model = compose_model(["model=mlp", "model/units=saturated_relu"], input_shape=(1, 4, 4), num_classes=3)
    inputs = torch.tensor([-1.0, 0.25, 1.0, 3.0])
    assert torch.equal(model.blocks[0].units(inputs), torch.tensor([0.0, 0.25, 1.0, 1.0]))


@pytest.mark.parametrize("path", sorted((CONF / "model").rglob("*.yaml")), ids=lambda path: path.stem)
def test_files_begin_with_a_description(path: Path):
    assert path.read_text().startswith("# ")
