"""The contract of feed-forward models as assertions, and helpers that compose a model from its configuration."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from altprop.models.base import FeedForward

CONF = Path(__file__).parents[2] / "conf"


class CountingUnits:
    """A units factory that records the modules it builds."""

    def __init__(self, build: Callable[[], nn.Module] = nn.ReLU) -> None:
        self.build = build
        self.built: list[nn.Module] = []

    def __call__(self) -> nn.Module:
        self.built.append(self.build())
        return self.built[-1]


def num_parameters(modules: nn.Module | Sequence[nn.Module]) -> int:
    modules = [modules] if isinstance(modules, nn.Module) else modules
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


@functools.cache
def compose_node(*overrides: str) -> dict[str, Any]:
    """Return the node ``model`` that ``overrides`` select from ``conf/model``; the first override selects the model."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(overrides=[f"+{overrides[0]}", *overrides[1:]])
    return OmegaConf.to_container(config.model, resolve=True)


def compose_model(overrides: Sequence[str], **runtime: Any) -> FeedForward:
    """Build the model that ``overrides`` select from ``conf/model``, as training does."""
    return instantiate(compose_node(*overrides), _convert_="all")(**runtime)


def activations_called(model: nn.Module, units: CountingUnits, inputs: Tensor) -> list[int]:
    """Return how often each unit is called in one forward pass."""
    calls = [0] * len(units.built)
    handles = []
    for index, unit in enumerate(units.built):

        def count(*_: Any, index: int = index) -> None:
            calls[index] += 1

        handles.append(unit.register_forward_hook(count))
    model(inputs)
    for handle in handles:
        handle.remove()
    return calls


def assert_feed_forward(model: FeedForward, units: CountingUnits, inputs: Tensor) -> None:
    """Assert the contract of :class:`FeedForward` on ``inputs`` that ``model`` accepts."""
    model.eval()
    scores = model(inputs)
    assert scores.shape == (len(inputs), model.num_classes)
    features = inputs
    for block in model.blocks:
        features = block(features)
    assert torch.equal(model.head(features), scores)

    # blocks and head are views: together they have every parameter, and the model registers each once
    parameters = [id(parameter) for module in (*model.blocks, model.head) for parameter in module.parameters()]
    assert len(parameters) == len(set(parameters))
    assert set(parameters) == {id(parameter) for parameter in model.parameters()}
    storages = [tensor.data_ptr() for tensor in model.state_dict().values() if tensor.numel() > 1]
    assert len(storages) == len(set(storages))

    # every activation comes from the factory, and each module is used once
    assert activations_called(model, units, inputs) == [1] * len(units.built)
    registered = {id(module) for module in model.modules()}
    assert all(id(unit) in registered for unit in units.built)

    # a copy is independent of the original, and its blocks are views of its own layers
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(inputs), scores)
        with torch.no_grad():
            for parameter in twin.blocks[0].parameters():
                parameter.fill_(0.1)
            changed = twin(inputs)
        views = {id(parameter) for module in (*twin.blocks, twin.head) for parameter in module.parameters()}
        assert views == {id(parameter) for parameter in twin.parameters()}
        assert not torch.equal(changed, scores)
    assert torch.equal(model(inputs), scores)
