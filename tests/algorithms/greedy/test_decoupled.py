"""Greedy training of blocks: isolation, the fused step, the case of one block, and sequential stages."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altprop.algorithms.backprop import Backprop
from altprop.algorithms.base import Algorithm
from altprop.algorithms.context import Context
from altprop.algorithms.greedy.decoupled import DecoupledGreedy
from altprop.algorithms.greedy.local_losses import LocalLosses
from altprop.algorithms.greedy.sequential import SequentialGreedy
from altprop.algorithms.loss_scaling import LossScaling
from altprop.algorithms.schedule import Schedule
from altprop.config.checks.validation import problems_of
from altprop.config.compose import compose
from altprop.models.dni_cnn import DniCNN
from altprop.models.greedy_cnn import GreedyCNN
from altprop.nn.heads import local as local_heads
from altprop.nn.heads.local import ConvHead, mlp_head, mlp_sr_head
from altprop.nn.weights.base import Dense, WeightsRule
from altprop.nn.weights.binary.base import Binary
from altprop.nn.weights.sparse.static import StaticSparse
from altprop.nn.weights.tied import TiedWeights
from tests.algorithms.harness import assert_equal

SHAPE = (1, 8, 8)
CLASSES = 3
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=5e-4)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def small_net(**options: Any) -> GreedyCNN:
    torch.manual_seed(0)
    sizes = {"depth": 3, "width": 4, "downsample": (1,), "input_shape": SHAPE, "num_classes": CLASSES, **options}
    return GreedyCNN(units=nn.ReLU, **sizes).double()


def set_up(algorithm: Algorithm, model: nn.Module | None = None, optimizer: Any = SGD, epochs: int = 4, **context: Any) -> Any:
    model = model if model is not None else small_net()
    facts = {"steps_per_epoch": 3, "device": torch.device("cpu"), "seed": 0, "input_shape": SHAPE, "num_classes": CLASSES}
    facts = {**facts, "batch_size": 6, "total_epochs": algorithm.total_epochs(epochs, model), **context}
    schedule = Schedule(scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.2))
    algorithm.setup(model, optimizer, schedule, Context(**facts))
    return algorithm


def batch(seed: int, count: int = 6, shape: tuple[int, ...] = SHAPE) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(CLASSES, (count,), generator=generator)


def train(algorithm: Algorithm, epochs: int, first: int = 0, steps: int = 3) -> list[dict[str, Tensor]]:
    metrics = []
    for epoch in range(first, first + epochs):
        algorithm.epoch_start(epoch)
        metrics += [algorithm.train_step(*batch(epoch * steps + step)) for step in range(steps)]
        algorithm.epoch_end(epoch)
    return metrics


def test_no_gradient_flows_between_blocks() -> None:
    """Each loss reaches only its own block and head. The gradient of a block's input is never computed."""
    algorithm = set_up(DecoupledGreedy(head=mlp_sr_head))
    inputs, targets = batch(0)
    features = inputs
    for index, part in enumerate(algorithm.parts):
        algorithm.model.zero_grad()
        algorithm.local_heads.zero_grad()
        features, scores = part(features)
        features.retain_grad()
        algorithm.loss(scores, targets).backward()
        own = {id(parameter) for parameter in part.parameters()}
        everything = [*algorithm.model.parameters(), *algorithm.local_heads.parameters()]
        reached = {id(parameter) for parameter in everything if parameter.grad is not None}
        assert reached <= own
        assert {id(parameter) for parameter in algorithm.blocks[index].parameters()} <= reached
        features = features.detach()
    assert inputs.grad is None
    outputs, _, _ = algorithm.train_block(0, inputs, targets)
    assert outputs.grad_fn is None


@pytest.mark.parametrize("block_size", [1, 2])
@pytest.mark.parametrize("optimizer", [SGD, partial(torch.optim.Adam, lr=1e-3)])
def test_block_by_block_is_the_step_of_the_summed_losses(block_size: int, optimizer: Any) -> None:
    """Bit-identical to one forward pass with detached features, one backward pass of the sum and one optimizer (section 2.1)."""
    algorithm = set_up(DecoupledGreedy(block_size=block_size), optimizer=optimizer)
    fused = set_up(DecoupledGreedy(block_size=block_size), optimizer=optimizer)
    joint = optimizer([parameter for part in fused.parts for parameter in part.parameters()])
    algorithm.epoch_start(0)
    fused.epoch_start(0)
    for step in range(4):
        inputs, targets = batch(step)
        algorithm.train_step(inputs, targets)
        features, total = inputs, torch.zeros((), dtype=torch.float64)
        for part in fused.parts:
            outputs, scores = part(features)
            total = total + nn.functional.cross_entropy(scores, targets)
            features = outputs.detach()
        joint.zero_grad()
        total.backward()
        joint.step()
    assert_equal(algorithm.model.state_dict(), fused.model.state_dict())
    assert_equal(algorithm.local_heads.state_dict(), fused.local_heads.state_dict())


def test_one_graph_is_in_memory_at_a_time() -> None:
    """When a block starts its forward pass, all saved tensors of the graphs of earlier blocks have been freed."""
    alive: set[int] = set()
    at_the_start = []

    class Saved:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor
            alive.add(id(self))
            weakref.finalize(self, alive.discard, id(self))

    algorithm = set_up(DecoupledGreedy())
    for part in algorithm.parts:
        part.register_forward_pre_hook(lambda *_: at_the_start.append(len(alive)))
        part.head.register_forward_pre_hook(lambda *_: at_the_start.append(len(alive)))
    algorithm.epoch_start(0)
    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        algorithm.train_step(*batch(0))
    assert at_the_start[::2] == [0, 0, 0]
    assert all(at_the_start[1::2])
    assert not alive


@pytest.mark.parametrize("algorithm", [DecoupledGreedy, SequentialGreedy])
def test_one_block_is_backprop(algorithm: type[LocalLosses]) -> None:
    greedy, plain = set_up(algorithm(block_size=3)), set_up(Backprop())
    one, other = train(greedy, 4), train(plain, 4)
    assert_equal(greedy.model.state_dict(), plain.model.state_dict())
    assert [float(metrics["loss"]) for metrics in one] == [float(metrics["loss"]) for metrics in other]
    assert len(greedy.local_heads) == 0


def test_remaining_layers_form_a_block_with_the_model_classifier() -> None:
    algorithm = set_up(DecoupledGreedy(block_size=2))
    assert [len(block) for block in algorithm.blocks] == [2, 1]
    assert algorithm.parts[-1].head is algorithm.model.head


@pytest.mark.parametrize(
    ("head", "net", "total"),
    [
        ("mlp_sr", {"depth": 6, "width": 128}, 49_614_140),
        ("mlp", {"depth": 6, "width": 128}, 47_588_924),
        ("cnn", {"depth": 6, "width": 128}, 27_383_356),
        ("mlp_sr", {"depth": 4, "width": 64}, 4_540_584),
        ("mlp", {"depth": 6, "width": 128, "downsample": (2, 4), "bias": False, "head_layers": 3}, 37_748_156),
    ],
)
def test_published_totals(head: str, net: dict[str, Any], total: int) -> None:
    model = GreedyCNN(units=nn.ReLU, input_shape=(3, 32, 32), num_classes=10, **net)
    factory = getattr(local_heads, f"{head}_head")
    algorithm = set_up(DecoupledGreedy(head=factory), model, input_shape=(3, 32, 32), num_classes=10)
    assert sum(parameter.numel() for part in algorithm.parts for parameter in part.parameters()) == total


def dni_net() -> DniCNN:
    torch.manual_seed(0)
    return DniCNN(width=128, units=nn.ReLU, input_shape=(3, 32, 32), num_classes=10)


def test_first_step_with_conv_heads_changes_only_layers_above_their_zero_weights() -> None:
    algorithm = set_up(DecoupledGreedy(head=ConvHead), dni_net(), input_shape=(3, 32, 32), num_classes=10)
    assert sum(parameter.numel() for part in algorithm.parts for parameter in part.parameters()) == 3_293_214
    features, targets = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    for part in algorithm.parts[:2]:
        outputs, scores = part(features)
        nn.functional.cross_entropy(scores, targets).backward()
        features = outputs.detach()
        unchanged = [*part.block.parameters(), *part.head.convolutions[:5].parameters()]
        assert all(not parameter.grad.any() for parameter in unchanged)
        changed = [part.head.convolutions[6].weight, part.head.classifier.weight]
        assert all(parameter.grad.any() for parameter in changed)


def test_unused_norm_of_a_head_never_changes() -> None:
    algorithm = set_up(DecoupledGreedy(head=mlp_sr_head))
    before = [head.map_norm.weight.clone() for head in algorithm.local_heads]
    train(algorithm, 1)
    assert all(torch.equal(head.map_norm.weight, old) for head, old in zip(algorithm.local_heads, before))


def test_metrics_and_predictions_of_every_block() -> None:
    algorithm = set_up(DecoupledGreedy(block_size=2))
    metrics = train(algorithm, 1)[-1]
    assert set(metrics) == {"loss", "accuracy", *(f"block{n}/{name}" for n in (1, 2) for name in ("loss", "accuracy"))}
    assert metrics["loss"] is metrics["block2/loss"]
    inputs, _ = batch(9)
    with algorithm.inference():
        predictions = algorithm.predictions(inputs)
        own = algorithm.predict(inputs)
        first = algorithm.local_heads[0](algorithm.blocks[0](inputs))
    assert set(predictions) == {"", "block1", "block2", "ensemble"}
    assert torch.equal(predictions[""], own)
    assert torch.equal(predictions["block2"], own)
    assert torch.equal(predictions["block1"], first)
    averaged = first.softmax(1) / 3 + 2 * own.softmax(1) / 3
    assert torch.allclose(predictions["ensemble"].exp(), averaged, atol=1e-6)
    assert algorithm.local_heads.training


def test_all_heads_are_evaluated_in_one_pass() -> None:
    algorithm = set_up(DecoupledGreedy())
    calls: list[nn.Module] = []
    for part in algorithm.parts:
        for module in (part.block, part.head):
            module.register_forward_hook(lambda module, *_: calls.append(module))
    with algorithm.inference():
        algorithm.predictions(batch(0)[0])
    assert calls == [module for part in algorithm.parts for module in (part.block, part.head)]


def test_ensemble_can_be_switched_off() -> None:
    algorithm = set_up(DecoupledGreedy(ensemble=None))
    with algorithm.inference():
        assert not any("ensemble" in name for name in algorithm.predictions(batch(0)[0]))


def test_ensembles_of_the_heads_up_to_a_block() -> None:
    algorithm = set_up(DecoupledGreedy(ensemble="logits"))
    with algorithm.inference():
        predictions = algorithm.predictions(batch(0)[0])
    one, two, three = (predictions[f"block{number}"] for number in (1, 2, 3))
    assert torch.allclose(predictions["block2/ensemble"], (one + 2 * two) / 3, atol=1e-6)
    assert torch.allclose(predictions["ensemble"], (one + 2 * two + 4 * three) / 7, atol=1e-6)
    assert "block3/ensemble" not in predictions


def test_heads_do_not_depend_on_initial_values_of_the_model() -> None:
    one = set_up(DecoupledGreedy())
    torch.manual_seed(99)
    other = set_up(DecoupledGreedy(), small_net(batch_norm_init="uniform"))
    assert_equal(one.local_heads.state_dict(), other.local_heads.state_dict())
    third = set_up(DecoupledGreedy(), seed=1)
    assert not torch.equal(third.local_heads[0].classifier[0].weight, one.local_heads[0].classifier[0].weight)


# -- sequential ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "weights", [Dense(), Binary(scale="channel", clip=1.0), StaticSparse(sparsity=0.5), TiedWeights(sparsity=0.5)]
)
def test_stages_change_only_the_block_in_training(weights: WeightsRule) -> None:
    """Frozen blocks with their running statistics, and everything above the block in training, stay bit-identical."""
    assert not weights.moves
    algorithm = set_up(SequentialGreedy(head=mlp_sr_head, weights=weights), epochs=2)
    assert algorithm.context.total_epochs == 6
    for stage in range(3):
        before = [{name: value.clone() for name, value in part.state_dict().items()} for part in algorithm.parts]
        metrics = train(algorithm, 2, first=2 * stage)
        assert all(set(step) == {"loss", "accuracy", f"block{stage + 1}/loss", f"block{stage + 1}/accuracy"} for step in metrics)
        for index, part in enumerate(algorithm.parts):
            if index == stage:
                assert any(not torch.equal(value, before[index][name]) for name, value in part.state_dict().items())
            else:
                assert_equal(dict(part.state_dict()), before[index])


def test_frozen_blocks_output_the_features_of_evaluation_mode() -> None:
    algorithm = set_up(SequentialGreedy(), epochs=1)
    train(algorithm, 1)
    algorithm.epoch_start(1)
    seen: list[Tensor] = []
    algorithm.parts[1].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    inputs, targets = batch(5)
    algorithm.train_step(inputs, targets)
    with algorithm.inference():
        assert torch.equal(seen[0], algorithm.blocks[0](inputs))
    assert algorithm.blocks[1].training


def test_every_stage_has_its_own_schedule() -> None:
    algorithm = set_up(SequentialGreedy(), epochs=3)
    rates = []
    for epoch in range(9):
        algorithm.epoch_start(epoch)
        rates.append(algorithm.learning_rate)
        algorithm.train_step(*batch(epoch))
        algorithm.epoch_end(epoch)
    assert rates == pytest.approx(3 * [0.1, 0.1, 0.02])


def test_sequential_predicts_with_the_head_in_training() -> None:
    algorithm = set_up(SequentialGreedy(), epochs=1)
    inputs, _ = batch(7)
    for stage in range(3):
        train(algorithm, 1, first=stage)
        with algorithm.inference():
            predictions = algorithm.predictions(inputs)
            assert torch.equal(predictions[""], algorithm.predict(inputs))
        partial_ensembles = {f"block{count}/ensemble" for count in range(2, stage + 1)}
        assert set(predictions) == {"", "ensemble", *(f"block{index + 1}" for index in range(stage + 1)), *partial_ensembles}
    with algorithm.inference():
        assert torch.equal(algorithm.predict(inputs), algorithm.model(inputs))
    restored = set_up(SequentialGreedy(), epochs=1)
    restored.load_state_dict(algorithm.state_dict())
    with restored.inference():
        assert torch.equal(restored.predict(inputs), algorithm.model.eval()(inputs))


def test_first_stage_is_the_first_block_of_the_parallel_form() -> None:
    sequential, parallel = set_up(SequentialGreedy(), epochs=3), set_up(DecoupledGreedy(), epochs=3)
    train(sequential, 3)
    train(parallel, 3)
    assert_equal(dict(sequential.parts[0].state_dict()), dict(parallel.parts[0].state_dict()))


# -- optimizer resets ------------------------------------------------------------------------------------------------------------


def test_reset_drops_momentum_once() -> None:
    algorithm = set_up(DecoupledGreedy(reset_optimizer_at=[1]))
    train(algorithm, 1)
    assert algorithm.optimizers[0].optimizer.state
    algorithm.epoch_start(1)
    assert all(not optimizer.optimizer.state for optimizer in algorithm.optimizers)
    algorithm.train_step(*batch(3))
    state = algorithm.state_dict()
    algorithm.epoch_start(1)
    assert algorithm.optimizers[0].optimizer.state
    resumed = set_up(DecoupledGreedy(reset_optimizer_at=[1]))
    resumed.load_state_dict(state)
    resumed.epoch_start(1)
    assert resumed.optimizers[0].optimizer.state
    rates = [optimizer.learning_rate for optimizer in algorithm.optimizers]
    algorithm.epoch_end(1)
    assert [optimizer.learning_rate for optimizer in algorithm.optimizers] == pytest.approx([rate / 5 for rate in rates])


def test_reset_equals_new_optimizers() -> None:
    algorithm, fresh = set_up(DecoupledGreedy(reset_optimizer_at=[2])), set_up(DecoupledGreedy())
    train(algorithm, 2)
    train(fresh, 2)
    for part, optimizer in zip(fresh.parts, fresh.optimizers):
        optimizer.optimizer = SGD(part.parameters(), lr=optimizer.learning_rate)
    train(algorithm, 1, first=2)
    fresh.epoch_start(2)
    for step in range(3):
        fresh.train_step(*batch(6 + step))
    assert_equal(algorithm.model.state_dict(), fresh.model.state_dict())


def test_sequential_reset_counts_within_the_stage() -> None:
    algorithm = set_up(SequentialGreedy(reset_optimizer_at=[1]), epochs=2)
    train(algorithm, 3)
    algorithm.epoch_start(3)
    assert not algorithm.optimizers[1].optimizer.state


# -- options ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["decoupled_greedy", "sequential_greedy", "asynchronous_greedy", "distributed_greedy"])
def test_conv_heads_on_a_perceptron_and_negative_layers_are_refused_before_building(algorithm: str) -> None:
    def problems(*overrides: str) -> list[tuple[str, str]]:
        return [(problem.key, problem.fix) for problem in problems_of(compose([f"algorithm={algorithm}", *overrides]))]

    assert problems("model=mlp", "algorithm/head=conv") == [("algorithm.head", "algorithm/head=mlp")]
    assert not problems("model=dni_cnn", "algorithm/head=conv")
    assert not problems("model=mlp", "algorithm/head=cnn")
    layers = "algorithm.head.conv_layers"
    assert problems("model=greedy_cnn", "algorithm/head=cnn", f"{layers}=-1") == [(layers, f"{layers}=0")]


@pytest.mark.parametrize(
    ("config", "root", "key"),
    [
        ({"block_size": 0}, {}, "algorithm.block_size"),
        ({"block_size": 2, "cut_points": [1]}, {}, "algorithm.cut_points"),
        ({"reset_optimizer_at": [0]}, {}, "algorithm.reset_optimizer_at"),
        ({"loss_scaling": {"dynamic": True}}, {"trainer": {"precision": "fp32"}}, "algorithm.loss_scaling"),
    ],
)
def test_invalid_settings_are_problems(config: dict[str, Any], root: dict[str, Any], key: str) -> None:
    assert [problem.key for problem in DecoupledGreedy.check(config, root)] == [key]


def test_valid_settings_are_not_problems() -> None:
    config = {"block_size": 1, "cut_points": [2], "reset_optimizer_at": [3], "loss_scaling": {}}
    assert not list(DecoupledGreedy.check(config, {"trainer": {"precision": "fp16"}}))


def test_bf16_keeps_parameters_and_heads_in_fp32() -> None:
    model = GreedyCNN(depth=2, width=4, downsample=(1,), units=nn.ReLU, input_shape=SHAPE, num_classes=CLASSES)
    algorithm = set_up(DecoupledGreedy(head=mlp_head), model, precision="bf16")
    algorithm.epoch_start(0)
    inputs, targets = batch(0)
    metrics = algorithm.train_step(inputs.float(), targets)
    assert torch.isfinite(metrics["loss"])
    assert {parameter.dtype for part in algorithm.parts for parameter in part.parameters()} == {torch.float32}


def test_fp16_uses_the_loss_scaling_rule() -> None:
    model = GreedyCNN(depth=2, width=4, downsample=(1,), units=nn.ReLU, input_shape=SHAPE, num_classes=CLASSES)
    algorithm = set_up(DecoupledGreedy(loss_scaling=LossScaling(), reset_optimizer_at=[1]), model, precision="fp16")
    before = [value.detach().clone() for value in model.parameters()]
    inputs, targets = batch(0)
    algorithm.epoch_start(0)
    algorithm.train_step(inputs.float(), targets)
    assert algorithm.optimizers[0].scaler.get_scale() == 2.0**31
    assert all(torch.equal(value, old) for value, old in zip(model.parameters(), before))
    for _ in range(30):
        algorithm.train_step(inputs.float(), targets)
    assert any(not torch.equal(value, old) for value, old in zip(model.parameters(), before))
    algorithm.epoch_start(1)
    assert algorithm.optimizers[0].scaler.get_scale() == 2.0**32
