"""Requirements for every algorithm: learn, resume bit-exactly, support its capabilities and all weights rules."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from altprop.nn.weights.base import WeightsRule
from altprop.testing.distributed import freeze_batch_norm, half, on_two_processes, train_epoch
from altprop.testing.examples import WEIGHTS_RULES
from altprop.testing.problem import STEPS_PER_EPOCH, Case, Training, assert_equal

CURVE_STEPS = 24
STORE_CURVES = "ALTPROP_STORE_CURVES"
"""Environment variable that makes the suite store the curves that do not exist yet."""
_CAPABILITIES = {
    "test_accumulation_gives_the_same_update": "accumulate",
    "test_clipping_bounds_the_update": "clip",
    "test_mixed_precision_stays_close": "amp",
    "test_compiled_step_equals_the_plain_step": "compile",
    "test_two_processes_give_the_update_of_one": "ddp",
}
"""Tests that only algorithms with a capability take."""


class AlgorithmSuite:
    """Tests of algorithms on the tiny problem. Inherit it in a class ``Test…`` and set :attr:`cases`.

    The subclass must be importable by name, because the test on two processes imports it in both.
    """

    cases: ClassVar[Mapping[str, Case]] = {}
    """The algorithms by name."""
    rules: ClassVar[Mapping[str, Callable[[], WeightsRule]]] = WEIGHTS_RULES
    """The weights rules that each algorithm is combined with."""
    curves: ClassVar[Path | None] = None
    """Folder of stored losses, ``<name>.json``, that each algorithm must follow. With ``ALTPROP_STORE_CURVES=1`` in the
    environment, missing ones are written. None: no curves are compared.
    """

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run every test with every algorithm that it applies to."""
        names = list(self.cases)
        test = metafunc.function.__name__
        if capability := _CAPABILITIES.get(test):
            names = [name for name in names if getattr(self.cases[name].algorithm(WeightsRule()).capabilities, capability)]
        if test == "test_follows_its_stored_curve" and not os.environ.get(STORE_CURVES):
            stored = {file.stem for file in self.curves.glob("*.json")} if self.curves is not None else set()
            names = [name for name in names if name in stored]
        if "name" in metafunc.fixturenames:
            metafunc.parametrize("name", names)
        if "rule" in metafunc.fixturenames:
            metafunc.parametrize("rule", self.rules)

    @pytest.fixture(autouse=True)
    def _one_thread(self) -> None:
        torch.set_num_threads(1)

    def test_learns(self, name: str) -> None:
        training = Training(self.cases[name])
        before = training.evaluate()["accuracy"]
        after = training.run().evaluate()["accuracy"]
        assert after >= self.cases[name].learns_to
        assert after > before

    @pytest.mark.parametrize("steps", [1, STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH + 2])
    def test_resumes_bit_exactly(self, name: str, steps: int) -> None:
        total = 4 * STEPS_PER_EPOCH + 1
        straight = Training(self.cases[name]).run(total)
        interrupted = Training(self.cases[name]).run(steps)
        resumed = Training(self.cases[name]).restore(interrupted.state()).run(total - steps)
        assert_equal(straight.state(), resumed.state())
        assert interrupted.losses + resumed.losses == straight.losses

    def test_state_is_plain_data(self, name: str, tmp_path: Path) -> None:
        training = Training(self.cases[name]).run(3)
        torch.save(training.state()["algorithm"], tmp_path / "state.pt")
        assert_equal(torch.load(tmp_path / "state.pt", weights_only=True), training.state()["algorithm"])

    def test_follows_its_stored_curve(self, name: str) -> None:
        """Losses of the first steps. A difference is a change of numerics: explain it, delete the file and store it again."""
        if self.curves is None:
            pytest.skip("no folder of curves")
        losses = Training(self.cases[name]).run(CURVE_STEPS).losses
        path = self.curves / f"{name}.json"
        if os.environ.get(STORE_CURVES) and not path.exists():
            path.write_text(json.dumps([round(loss, 7) for loss in losses]) + "\n")
        stored = json.loads(path.read_text())
        assert len(losses) == len(stored) > 0
        assert losses == pytest.approx(stored, rel=2e-3, abs=1e-5)

    def test_metrics_are_scalars_on_the_device(self, name: str) -> None:
        training = Training(self.cases[name])
        training.algorithm.epoch_start(0)
        metrics = training.algorithm.train_step(*next(training.train_split.batches()))
        for value in metrics.values():
            assert isinstance(value, Tensor)
            assert value.numel() == 1
            assert not value.requires_grad

    def test_evaluation_changes_nothing(self, name: str) -> None:
        training = Training(self.cases[name]).run(3)
        before = training.state()
        first, second = training.evaluate(), training.evaluate()
        assert first == second
        assert_equal(training.state(), before)

    def test_composes_with_weights_rule(self, name: str, rule: str) -> None:
        case = self.cases[name]
        training = Training(case, self.rules[rule]())
        skip_what_validation_refuses(training)
        training.run(STEPS_PER_EPOCH + 2)
        assert all(torch.isfinite(parameter).all() for parameter in training.algorithm.model.parameters())
        resumed = Training(case, self.rules[rule]()).restore(training.state())
        assert_equal(training.run(3).state(), resumed.run(3).state())

    def test_accumulation_gives_the_same_update(self, name: str) -> None:
        """Without batch statistics, the gradients of slices add up to that of the whole mini-batch."""
        whole = Training(self.cases[name], dtype=torch.float64)
        sliced = Training(self.cases[name], dtype=torch.float64, accumulate=4)
        for training in (whole, sliced):
            training.algorithm.epoch_start(0)
            freeze_batch_norm(training.algorithm.model)
            training.algorithm.train_step(*next(training.train_split.batches()))
        _assert_close(whole, sliced, 1e-10)

    def test_clipping_bounds_the_update(self, name: str) -> None:
        lengths = []
        for training in (Training(self.cases[name]), Training(self.cases[name], clip_norm=1e-3)):
            before = [value.detach().clone() for value in training.algorithm.model.parameters()]
            training.run(1)
            pairs = zip(training.algorithm.model.parameters(), before, strict=True)
            lengths.append(float(torch.stack([(value.detach() - old).norm() for value, old in pairs]).norm()))
        assert lengths[1] < lengths[0]

    @pytest.mark.parametrize("precision", ["bf16"])
    def test_mixed_precision_stays_close(self, name: str, precision: str) -> None:
        full, mixed = Training(self.cases[name]).run(), Training(self.cases[name], precision=precision).run()
        assert all(parameter.dtype == torch.float32 for parameter in mixed.algorithm.model.parameters())
        assert mixed.evaluate()["accuracy"] >= full.evaluate()["accuracy"] - 5

    @pytest.mark.filterwarnings("ignore")
    def test_compiled_step_equals_the_plain_step(self, name: str) -> None:
        torch._dynamo.reset()
        plain, compiled = Training(self.cases[name]).run(3), Training(self.cases[name], compile=True).run(3)
        _assert_close(plain, compiled, 1e-4)

    def test_two_processes_give_the_update_of_one(self, name: str, tmp_path: Path) -> None:
        """Two processes with half of each mini-batch make the same update as one with the whole, except for batch norm."""
        states = on_two_processes(type(self), "state_on_a_process", name, tmp_path)
        alone = Training(self.cases[name], dtype=torch.float64)
        train_epoch(alone)
        for state in states:
            for key, value in alone.algorithm.model.state_dict().items():
                assert torch.allclose(state[key], value, rtol=0, atol=1e-10), key

    @classmethod
    def state_on_a_process(cls, name: str, rank: int) -> dict[str, Tensor]:
        """The parameters after one epoch on process ``rank`` of two."""
        training = Training(cls.cases[name], dtype=torch.float64, rank=rank, world_size=2)
        train_epoch(training, share=half(rank))
        return training.algorithm.model.state_dict()


def skip_what_validation_refuses(training: Training) -> None:
    """Skip the test if the algorithm cannot be combined with the weights rule; validation refuses the combination."""
    capabilities = training.algorithm.capabilities
    if not capabilities.weights_rules:
        pytest.skip("the algorithm does not support weights rules; validation refuses the combination")
    if capabilities.freezes and training.algorithm.weights.moves:
        pytest.skip("the rule would change frozen weights; validation refuses the combination")


def _assert_close(one: Training, other: Training, tolerance: float) -> None:
    others = dict(other.algorithm.model.named_parameters())
    for key, value in one.algorithm.model.named_parameters():
        assert torch.allclose(value, others[key], rtol=tolerance, atol=tolerance), key
