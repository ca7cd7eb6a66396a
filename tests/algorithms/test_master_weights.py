"""fp16 parameters updated through fp32 copies: the library's step compared with the published wrapper, written out here."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altprop.algorithms.context import Context
from altprop.algorithms.greedy.decoupled import DecoupledGreedy
from altprop.algorithms.greedy.local_losses import LocalLosses
from altprop.algorithms.greedy.sequential import SequentialGreedy
from altprop.algorithms.loss_scaling import LossScaling
from altprop.algorithms.schedule import Schedule
from altprop.models.greedy_cnn import GreedyCNN
from tests.algorithms.harness import assert_equal

SHAPE, CLASSES = (1, 8, 8), 3
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=5e-4)
DYNAMIC = LossScaling(init_scale=2.0**20, growth_interval=5)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def set_up(algorithm: LocalLosses, epochs: int = 2) -> Any:
    torch.manual_seed(0)
    model = GreedyCNN(depth=2, width=4, downsample=(1,), units=nn.ReLU, input_shape=SHAPE, num_classes=CLASSES)
    facts = {"steps_per_epoch": 10, "device": torch.device("cpu"), "seed": 0, "batch_size": 6, "precision": "fp16"}
    facts["total_epochs"] = algorithm.total_epochs(epochs, model)
    algorithm.setup(model, SGD, Schedule(), Context(input_shape=SHAPE, num_classes=CLASSES, **facts))  # type: ignore[arg-type]
    algorithm.epoch_start(0)
    return algorithm


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, *SHAPE, generator=generator), torch.randint(CLASSES, (6,), generator=generator)


class Published:
    """Section 2.7 of the specification, line by line, for one block with its head. It uses torch's SGD on the masters."""

    def __init__(self, part: nn.Module, scale: float, interval: int, dynamic: bool) -> None:
        self.part = part
        self.values = list(part.parameters())
        self.masters = [value.detach().float().requires_grad_() if value.dtype == torch.half else value for value in self.values]
        self.sgd = SGD(self.masters)
        self.scale, self.interval, self.dynamic = scale, interval, dynamic
        self.iteration, self.last = 0, -1

    def step(self, features: Tensor, targets: Tensor) -> Tensor:
        for value in self.values:
            value.grad = None
        outputs, scores = self.part(features)
        loss = nn.functional.cross_entropy(scores, targets)
        (loss.float() * self.scale).backward()
        gradients = [value.grad for value in self.values]
        sums = [gradient.float().sum() for gradient in gradients if gradient is not None]
        overflow = self.dynamic and any(not torch.isfinite(total) for total in sums)
        used = self.scale
        if self.dynamic:
            if overflow:
                self.scale, self.last = max(self.scale / 2, 1.0), self.iteration
            elif (self.iteration - self.last) % self.interval == 0:
                self.scale *= 2
        self.iteration += 1
        if not overflow:
            for master, gradient in zip(self.masters, gradients):
                master.grad = None if gradient is None else gradient.float() / used
            self.sgd.step()
            with torch.no_grad():
                for value, master in zip(self.values, self.masters):
                    value.copy_(master)
        return outputs.detach()


@pytest.mark.parametrize("rule", [DYNAMIC, LossScaling(init_scale=128.0, dynamic=False)])
def test_every_step_is_that_of_the_published_wrapper(rule: LossScaling) -> None:
    """Bit-identical over skipped updates, updates and a growing scale (scales are powers of two, so division is exact)."""
    algorithm = set_up(DecoupledGreedy(loss_scaling=rule, master_weights=True))
    copies = copy.deepcopy(nn.ModuleList(algorithm.parts))
    references = [Published(part, rule.init_scale, rule.growth_interval, rule.dynamic) for part in copies]
    scales = set()
    for seed in range(30):
        inputs, targets = batch(seed)
        algorithm.train_step(inputs, targets)
        features = inputs.half()
        for index, reference in enumerate(references):
            features = reference.step(features, targets)
            assert algorithm.optimizers[index].scaler.get_scale() == reference.scale
            assert_equal(dict(algorithm.parts[index].state_dict()), dict(reference.part.state_dict()))
        scales.add(references[0].scale)
    assert len(scales) > 3 or not rule.dynamic


def test_reset_optimizers_start_with_new_copies() -> None:
    """Section 5: a decay creates a new optimizer, a new scaler and a new wrapper with its fp32 copies."""
    algorithm = set_up(DecoupledGreedy(loss_scaling=DYNAMIC, master_weights=True, reset_optimizer_at=[1]))
    for seed in range(12):
        algorithm.train_step(*batch(seed))
    copies = [pair for step in algorithm.optimizers for pair in step.copies]
    assert any(not torch.equal(value.float(), master) for value, master in copies)
    algorithm.epoch_start(1)
    assert all(torch.equal(value.float(), master) for value, master in copies)
    parts = copy.deepcopy(nn.ModuleList(algorithm.parts))
    references = [Published(part, DYNAMIC.init_scale, DYNAMIC.growth_interval, True) for part in parts]
    for seed in range(12, 36):
        inputs, targets = batch(seed)
        algorithm.train_step(inputs, targets)
        features = inputs.half()
        for index, reference in enumerate(references):
            features = reference.step(features, targets)
            assert_equal(dict(algorithm.parts[index].state_dict()), dict(reference.part.state_dict()))


def test_everything_except_batch_norms_and_masters_is_fp16() -> None:
    algorithm = set_up(DecoupledGreedy(loss_scaling=DYNAMIC, master_weights=True))
    for part in algorithm.parts:
        for layer in part.modules():
            expected = torch.float32 if isinstance(layer, nn.modules.batchnorm._BatchNorm) else torch.float16
            tensors = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
            assert {value.dtype for value in tensors if value.is_floating_point()} <= {expected}
    assert {value.dtype for step in algorithm.optimizers for value in step.parameters} == {torch.float32}
    seen: list[torch.dtype] = []
    algorithm.local_heads[0].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].dtype))
    metrics = algorithm.train_step(*batch(0))
    with algorithm.inference():
        predictions = algorithm.predictions(batch(1)[0])
        assert torch.equal(predictions[""], algorithm.predict(batch(1)[0]))
    assert seen == [torch.float16, torch.float16]
    assert {value.dtype for value in metrics.values()} == {torch.float32}


@pytest.mark.parametrize("kind", [DecoupledGreedy, SequentialGreedy])
def test_learns_and_resumes_bit_exactly(kind: type[LocalLosses]) -> None:
    def new() -> Any:
        return set_up(kind(loss_scaling=DYNAMIC, master_weights=True))

    def train(algorithm: Any, first: int, end: int) -> list[float]:
        losses = []
        for step in range(first, end):
            algorithm.epoch_start(step // 10)
            losses.append(float(algorithm.train_step(*batch(step % 2))["loss"]))
        return losses

    straight = new()
    losses = train(straight, 0, 40)
    assert losses[-1] < 0.5 * losses[0]
    interrupted = new()
    train(interrupted, 0, 17)
    resumed = new()
    resumed.load_state_dict(copy.deepcopy(interrupted.state_dict()))
    assert train(resumed, 17, 40) == losses[17:]
    assert_equal(resumed.state_dict(), straight.state_dict())


def test_small_updates_are_not_lost() -> None:
    """The purpose of masters: steps far below the spacing of fp16 numbers still add up."""
    algorithm = set_up(DecoupledGreedy(loss_scaling=LossScaling(init_scale=1.0, dynamic=False), master_weights=True))
    step = algorithm.optimizers[0]
    value, master = step.copies[0]
    with torch.no_grad():
        value.fill_(1.0)
        master.fill_(1.0)
    step.optimizer.param_groups[0].update(momentum=0.0, weight_decay=0.0, lr=1.0)
    for _ in range(16):
        step.zero_grad()
        value.grad = torch.full_like(value, 2.0**-14)
        step.step()
    assert torch.equal(master, torch.full_like(master, 1.0 - 2.0**-10))
    assert torch.equal(value.float(), master)


@pytest.mark.parametrize(
    ("config", "trainer"),
    [
        ({}, {"precision": "fp32"}),
        ({}, {"precision": "bf16"}),
        ({"weights": {"_target_": "altprop.weights.Binary"}}, {"precision": "fp16"}),
        ({}, {"precision": "fp16", "probe_every": "1ep"}),
    ],
)
def test_invalid_settings_are_problems(config: dict[str, Any], trainer: dict[str, Any]) -> None:
    problems = list(DecoupledGreedy.check({"master_weights": True, **config}, {"trainer": trainer}))
    assert [problem.key for problem in problems] == ["algorithm.master_weights"]


def test_dense_weights_in_fp16_are_valid() -> None:
    config = {"master_weights": True, "weights": {"_target_": "altprop.weights.Dense"}}
    assert not list(DecoupledGreedy.check(config, {"trainer": {"precision": "fp16", "probe_every": None}}))
