"""Requirements for every weights rule: train with every kind of algorithm, resume bit-exactly, agree on two processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from altprop.nn.weights.base import WeightsRule
from altprop.testing.algorithms import skip_what_validation_refuses
from altprop.testing.distributed import half, on_two_processes, train_epoch
from altprop.testing.examples import ALGORITHMS
from altprop.testing.problem import STEPS_PER_EPOCH, Case, Training, assert_equal


class WeightsRuleSuite:
    """Tests of weights rules on the tiny problem. Inherit it in a class ``Test…`` and set :attr:`rules`.

    The subclass must be importable by name, because the test on two processes imports it in both.
    """

    rules: ClassVar[Mapping[str, Callable[[], WeightsRule]]] = {}
    """The weights rules by name; each call returns a new one."""
    algorithms: ClassVar[Mapping[str, Case]] = ALGORITHMS
    """The algorithms that each rule is combined with."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run every test with every rule and, if it takes one, every algorithm."""
        if "rule" in metafunc.fixturenames:
            metafunc.parametrize("rule", self.rules)
        if "name" in metafunc.fixturenames:
            metafunc.parametrize("name", self.algorithms)

    @pytest.fixture(autouse=True)
    def _one_thread(self) -> None:
        torch.set_num_threads(1)

    def test_trains_and_resumes_bit_exactly(self, rule: str, name: str) -> None:
        training = Training(self.algorithms[name], self.rules[rule]())
        skip_what_validation_refuses(training)
        training.run(STEPS_PER_EPOCH + 2)
        assert all(torch.isfinite(parameter).all() for parameter in training.algorithm.model.parameters())
        resumed = Training(self.algorithms[name], self.rules[rule]()).restore(training.state())
        assert_equal(training.run(3).state(), resumed.run(3).state())

    def test_state_is_plain_data(self, rule: str, tmp_path: Path) -> None:
        training = Training(self._first(), self.rules[rule]()).run(STEPS_PER_EPOCH + 1)
        torch.save(training.state()["algorithm"], tmp_path / "state.pt")
        assert_equal(torch.load(tmp_path / "state.pt", weights_only=True), training.state()["algorithm"])

    def test_layers_keep_their_classes(self, rule: str) -> None:
        """A rule parametrizes the weights of layers and replaces no layer."""
        plain, ruled = Training(self._first()), Training(self._first(), self.rules[rule]())
        for (key, layer), (_, other) in zip(_layers(plain), _layers(ruled), strict=True):
            assert isinstance(other, type(layer)), key
            assert other.weight.shape == layer.weight.shape, key

    def test_evaluation_changes_nothing(self, rule: str) -> None:
        training = Training(self._first(), self.rules[rule]()).run(STEPS_PER_EPOCH + 1)
        before = training.state()
        assert training.evaluate() == training.evaluate()
        assert_equal(training.state(), before)

    def test_rules_agree_on_two_processes(self, tmp_path: Path) -> None:
        """Over two epochs, masks, reallocation and random draws equal each other and those of one process."""
        states = on_two_processes(type(self), "states_on_a_process", "", tmp_path)
        for rule, make in self.rules.items():
            alone = Training(self._first(), make(), dtype=torch.float64)
            for epoch in range(2):
                train_epoch(alone, epoch)
                alone.algorithm.epoch_end(epoch)
            for key, value in alone.algorithm.model.state_dict().items():
                assert torch.equal(states[0][rule][key], states[1][rule][key]), (rule, key)
                assert torch.allclose(states[0][rule][key].double(), value.double(), rtol=0, atol=1e-10), (rule, key)

    @classmethod
    def states_on_a_process(cls, name: str, rank: int) -> dict[str, dict[str, Tensor]]:
        """The parameters after two epochs of each rule on process ``rank`` of two. ``name`` is not used."""
        states = {}
        for rule, make in cls.rules.items():
            training = Training(cls._first(), make(), dtype=torch.float64, rank=rank, world_size=2)
            for epoch in range(2):
                train_epoch(training, epoch, half(rank))
                training.algorithm.epoch_end(epoch)
            states[rule] = training.algorithm.model.state_dict()
        return states

    @classmethod
    def _first(cls) -> Case:
        return next(iter(cls.algorithms.values()))


def _layers(training: Training) -> list[tuple[str, torch.nn.Linear | torch.nn.Conv2d]]:
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    return [(key, module) for key, module in training.algorithm.model.named_modules() if isinstance(module, kinds)]
