"""Asynchronous decoupled greedy learning: each block trains at its own pace on features from a replay buffer."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import ceil
from typing import Annotated, Any, ClassVar, Unpack

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from altprop.algorithms.blocks import BlockOptions
from altprop.algorithms.context import Capabilities, Context
from altprop.algorithms.greedy.local_losses import HeadFactory, LocalLosses
from altprop.algorithms.greedy.replay_buffer import ReplayBuffer, Sample, max_uses_problems
from altprop.algorithms.greedy.round_means import RoundMeans
from altprop.algorithms.greedy.worker_choice import WorkerChoice, WorkerClock, WorkerOrder, expected_passes, worker_probabilities
from altprop.algorithms.loss_scaling import LossScaling
from altprop.algorithms.optimization import OptimizerFactory, OptimizerStep
from altprop.algorithms.schedule import Schedule
from altprop.nn.heads.ensemble import EnsembleOf
from altprop.nn.heads.local import mlp_head
from altprop.nn.losses.output import ClampedCrossEntropy
from altprop.problems import ConfigError, Problem, RunFailed
from altprop.ranges import PositiveInt

log = logging.getLogger(__name__)


class AsynchronousGreedy(LocalLosses):
    """Simulates one worker per block in a single process: at each iteration, one worker is picked and makes one step.

    Worker 1 takes the next mini-batch of the data. Every other worker takes a mini-batch of features from the buffer of the
    worker before it. Each worker puts its output into its own buffer. In a cyclic order with a buffer of one mini-batch this is
    the synchronous form. Each worker trains for the length of the run, counted in its own steps, with its own schedule. A worker
    that is done keeps passing features on in evaluation mode until the last worker is done; weights rules that change weights
    on their own are therefore refused.

    A training step of the run gives one mini-batch to worker 1 and continues until worker 1 is picked again, so an epoch of the
    run is a pass of worker 1. The run ends with the slowest worker.

    As published, the network is evaluated when all workers have finished a round of passes: at the end of the step in which that
    happens, and in addition to ``trainer.evaluate_every``. Records hold ``train/rounds`` and, for every block, its mean training
    loss and accuracy since the last record, the passes that it has finished and the rate of its last update.

    Args:
        head: Makes the head of a block.
        buffer_size: Number of mini-batches in each :class:`~altprop.algorithms.greedy.replay_buffer.ReplayBuffer`.
        max_uses: How often a mini-batch in a buffer is used at most. None: no limit.
        order: Whether workers are picked at random or in turn.
        slow_block: The 1-based block whose worker is slower than the others. None: all are equally fast.
        slowdown: How many times less often the slow worker is picked.
        restart_at_decay: Whether a drop of a worker's learning rate resets its optimizer and restarts the warm-up, in which
            every worker is picked twice in order.
        strict_lifo: Fixes the order of a full buffer; see ReplayBuffer.
        legacy_termination: Ends training as the published script does; see
            :class:`~altprop.algorithms.greedy.worker_choice.WorkerClock`.
        ensemble: What is averaged over heads for the prediction ``ensemble``. None: there is no such prediction.
        loss_scaling: Replaces torch's rule in fp16.
        options: Arguments of :class:`~altprop.algorithms.blocks.BlockAlgorithm`.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(amp=True, compile=True, clip=True, freezes=True, needs_blocks=True)
    default_loss = ClampedCrossEntropy

    def __init__(
        self,
        *,
        head: HeadFactory = mlp_head,
        buffer_size: PositiveInt = 1,
        max_uses: PositiveInt | None = None,
        order: WorkerOrder = "random",
        slow_block: PositiveInt | None = None,
        slowdown: Annotated[float, Ge(1), Le(1e9)] = 1.0,
        restart_at_decay: bool = True,
        strict_lifo: bool = False,
        legacy_termination: bool = False,
        ensemble: EnsembleOf | None = "logits",
        loss_scaling: LossScaling | None = None,
        **options: Unpack[BlockOptions],
    ) -> None:
        if unknown := options.keys() - BlockOptions.__annotations__:  # the base would take reset_optimizer_at, master_weights
            raise TypeError(f"AsynchronousGreedy has no option {', '.join(sorted(unknown))}")
        super().__init__(head=head, ensemble=ensemble, loss_scaling=loss_scaling, **options)
        self.buffer_size = buffer_size
        self.max_uses = float("inf") if max_uses is None else max_uses
        self.order: WorkerOrder = order
        self.slow_block = slow_block
        self.slowdown = slowdown
        self.restart_at_decay = restart_at_decay
        self.strict_lifo = strict_lifo
        self.legacy_termination = legacy_termination

    # -- set-up ----------------------------------------------------------------------------------------------------------------

    def total_epochs(self, epochs: int, model: nn.Module) -> int:
        """Return an upper bound on the passes of worker 1 until the slowest worker is done. The run usually ends earlier."""
        passes = self.slowdown
        if self.max_uses < float("inf"):
            workers = len(self.cut(model))
            slow_worker = None if self.slow_block is None else self.slow_block - 1
            probabilities = worker_probabilities(workers, slow_worker, self.slowdown)
            passes = max(passes, expected_passes(probabilities, self.buffer_size, self.max_uses))
        return ceil(1.2 * passes * epochs) + 5

    @property
    def passes(self) -> int:
        """The number of passes of every worker: the largest whose bound fits into the length of the run."""
        candidates = range(self.context.total_epochs, 0, -1)
        return next((epochs for epochs in candidates if self.total_epochs(epochs, self.model) <= self.context.total_epochs), 1)

    def block_context(self) -> Context:
        return dataclasses.replace(self.context, total_epochs=self.passes)

    def build(self, optimizer: OptimizerFactory, schedule: Schedule) -> Iterable[OptimizerStep]:
        optimizers = list(super().build(optimizer, schedule))
        workers = self.num_blocks
        if self.slow_block is not None and self.slow_block > workers:
            allowed = f"one of the {workers} blocks of this model"
            raise ConfigError([Problem("algorithm.slow_block", str(self.slow_block), allowed, "algorithm.slow_block=1")])
        slow_worker = None if self.slow_block is None else self.slow_block - 1
        probabilities = worker_probabilities(workers, slow_worker, self.slowdown)
        self.choice = WorkerChoice(probabilities, self.order, self.context.generator("workers"))
        self.clock = WorkerClock(workers, self.context.steps_per_epoch, self.passes, self.legacy_termination)
        self.buffers = [ReplayBuffer(self.buffer_size, self.strict_lifo) for _ in range(workers - 1)]
        self.round_means = RoundMeans(workers, self.context.device)
        self.upcoming: int | None = None
        self.deepest = -1
        self.rates = [optimization.learning_rate for optimization in optimizers]
        return optimizers

    # -- training --------------------------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        return self.clock.finished

    @property
    def evaluation_due(self) -> bool:
        return self.clock.round_ended

    def progress_metrics(self) -> dict[str, float]:
        # Block 1's rate changes where its own pass begins, which is within a step, and it has none to report once it is frozen.
        metrics = {"train/rounds": float(min(self.clock.done)), "train/learning_rate": self.rates[0]}
        for index, (passes, rate) in enumerate(zip(self.clock.done, self.rates, strict=True)):
            metrics[f"train/block{index + 1}/passes"] = float(passes)
            metrics[f"train/block{index + 1}/learning_rate"] = rate
        if self.clock.round_ended or self.finished:
            metrics |= {f"train/{name}": float(value) for name, value in self.round_means.means.items()}
        return metrics

    def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        batch: Sample | None = (inputs, targets)
        results: dict[int, list[tuple[Tensor, Tensor]]] = {}
        self.clock.round_ended = False
        while not self.finished:
            worker = self.upcoming if self.upcoming is not None else self.choice.next()
            self.upcoming = None
            if worker == 0 and batch is None:
                self.upcoming = 0
                break
            ended = self.clock.round_ended
            skip = self.clock.begin(worker, self._end_pass)
            if self.finished or (self.clock.round_ended and not ended):
                self.round_means.end_round()
            if skip or self.finished:
                continue
            if worker == 0:
                sample, batch = batch, None
            else:
                sample = self.buffers[worker - 1].get(self.max_uses)
            if sample is not None:
                result = self._work(worker, sample)
                if result is not None:
                    results.setdefault(worker, []).append(result)
        return self._metrics(results)

    @property
    def step_kind(self) -> None:
        """None, because the workers in a step are only known while it runs."""
        return None

    def _work(self, worker: int, sample: Sample) -> tuple[Tensor, Tensor] | None:
        """Make one step of ``worker``. Returns its loss and accuracy, or None if it only passes features on."""
        features, targets = sample
        self.clock.end(worker)
        result = None
        frozen = self.clock.is_frozen(worker)
        self.parts[worker].train(not frozen)
        with self.context.account(f"block {worker + 1} {'passes on' if frozen else 'trains on'} {targets.shape[0]}"):
            if frozen:
                with torch.no_grad(), self.optimizers[worker].autocast():
                    outputs = self.blocks[worker](features)
            else:
                self.rates[worker] = self.optimizers[worker].learning_rate
                outputs, loss, measured = self.train_block(worker, features, targets)
                result = (loss, measured["accuracy"])
                self.round_means.add(worker, *result, targets.shape[0])
        if worker < self.num_blocks - 1 and targets.shape[0] == self.context.batch_size:
            self.buffers[worker].add(outputs, targets)
        return result

    def _end_pass(self, worker: int) -> bool:
        """End a pass of ``worker``. Returns whether that restarted the warm-up."""
        optimization = self.optimizers[worker]
        before = optimization.learning_rate
        optimization.schedule.epoch_end()
        if not self.restart_at_decay or optimization.learning_rate >= before:
            return False
        optimization.forget()
        self.choice.restart()
        return True

    def _metrics(self, results: Mapping[int, Sequence[tuple[Tensor, Tensor]]]) -> dict[str, Tensor]:
        """Return means over each worker's steps; ``loss`` and ``accuracy`` are those of the deepest block that has ever trained.

        Workers without a training step among ``results`` have no metrics.
        """
        metrics: dict[str, Tensor] = {}
        for worker, values in sorted(results.items()):
            for position, name in enumerate(("loss", "accuracy")):
                metrics[f"block{worker + 1}/{name}"] = torch.stack([value[position] for value in values]).mean()
        self.deepest = max(self.deepest, *results, -1)
        if self.deepest in results:
            for name in ("loss", "accuracy"):
                metrics[name] = metrics[f"block{self.deepest + 1}/{name}"]
        return metrics

    def epoch_end(self, epoch: int) -> dict[str, Tensor]:
        if epoch + 1 == self.context.total_epochs and not self.finished:
            if min(self.clock.done) >= self.passes:
                raise RunFailed(
                    f"every block has made its {self.passes} passes, but the run does not end: algorithm.legacy_termination "
                    "waits for a pass after which no learning rate falls; set algorithm.legacy_termination=false"
                )
            unfinished = f"the run ends before every block has made its {self.passes} passes: {self.clock.done}"
            if self.total_epochs(self.passes, self.model) <= self.context.total_epochs:
                raise RunFailed(f"{unfinished}; raise algorithm.buffer_size or algorithm.max_uses")
            log.warning(unfinished)  # a run measured in steps that is too short for one pass of every block
        return self.weights_epoch_end(epoch)

    # -- state -----------------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "choice": self.choice.state_dict(),
            "clock": self.clock.state_dict(),
            "buffers": [buffer.state_dict() for buffer in self.buffers],
            "upcoming": self.upcoming,
            "deepest": self.deepest,
            "rates": list(self.rates),
            "round_sums": self.round_means.state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.choice.load_state_dict(state["choice"])
        self.clock.load_state_dict(state["clock"])
        for buffer, saved in zip(self.buffers, state["buffers"], strict=True):
            buffer.load_state_dict(saved, self.context.device)
        self.upcoming, self.deepest = state["upcoming"], state["deepest"]
        self.rates = list(state.get("rates", self.rates))  # older checkpoints have none
        self.round_means.load_state(state.get("round_sums", {}))

    # -- configuration ---------------------------------------------------------------------------------------------------------

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield problems of the buffers and the workers' pace, and those of :class:`LocalLosses`."""
        yield from super().check(config, root)
        if config.get("buffer_size", 1) < 1:
            yield Problem("algorithm.buffer_size", str(config["buffer_size"]), "at least 1 mini-batch", "algorithm.buffer_size=1")
        yield from max_uses_problems(config)
        slowdown, slow_block = config.get("slowdown", 1.0), config.get("slow_block")
        if slowdown < 1:
            yield Problem("algorithm.slowdown", str(slowdown), "a factor of at least 1", "algorithm.slowdown=1.2")
        if slow_block is not None and slow_block < 1:
            yield Problem("algorithm.slow_block", str(slow_block), "a block, counted from 1", "algorithm.slow_block=1")
        if slowdown > 1 and slow_block is None:
            yield Problem("algorithm.slowdown", str(slowdown), "say which block is slow", "algorithm.slow_block=1")
        if slowdown > 1 and config.get("order", "random") == "round_robin":
            description = f"{slowdown} with algorithm.order=round_robin"
            yield Problem("algorithm.slowdown", description, "no worker is slower if they take turns", "algorithm.order=random")
