"""Decoupled greedy learning on several processes: blocks train at the same time, each on the newest features it has."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from altprop.algorithms.context import Capabilities, uncounted
from altprop.algorithms.greedy.feature_channel import Batch, Mark
from altprop.algorithms.greedy.local_losses import LocalLosses, LocalLossesOptions
from altprop.algorithms.greedy.pipeline import Pipeline
from altprop.algorithms.greedy.replay_buffer import max_uses_problems
from altprop.algorithms.greedy.worker import EPOCH_END, EPOCH_START, REPORT, BlockTrainer, Mode, WorkerPlan
from altprop.algorithms.optimization import OptimizerFactory, OptimizerStep
from altprop.algorithms.replaying import dropout_options, is_random
from altprop.algorithms.schedule import Schedule
from altprop.names import builds
from altprop.problems import ConfigError, Problem, RunFailed
from altprop.ranges import PositiveInt, Workers


class DistributedGreedy(LocalLosses):
    """Trains a pipeline of processes, each with consecutive blocks, their heads and their optimizers.

    This process is the first worker. It trains its blocks on the data and sends features on; nothing comes back.

    - ``synchronous``: every block trains on every mini-batch once, in order, which gives bit-identical weights to
      :class:`~altprop.algorithms.greedy.decoupled.DecoupledGreedy`.
    - ``asynchronous``: a worker puts the features that arrive into a replay buffer and trains on it without waiting, one step per
      step of the epoch. No two runs are alike.

    The weights of the other workers are fetched at the end of an epoch, and whenever the model is evaluated or saved. Metrics of
    their blocks are means over whole epochs. With several CUDA devices, worker n uses device n modulo their number. Only dense
    weights are supported. With several processes, models with dropout are refused because every process has its own random
    stream, and plateau schedules because only this process gets the results of evaluations.

    Args:
        workers: Number of processes, this one included.
        mode: ``synchronous`` or ``asynchronous``.
        capacity: Number of mini-batches in the queue between two workers.
        buffer_size: Number of mini-batches in a replay buffer (asynchronous).
        max_uses: How often a mini-batch in a buffer is used at most (asynchronous). None: no limit.
        options: Arguments of :class:`~altprop.algorithms.greedy.local_losses.LocalLosses`.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        amp=True, clip=True, probe=False, in_process=False, weights_rules=False, needs_blocks=True
    )

    def __init__(
        self,
        *,
        workers: Workers = 2,
        mode: Mode = "synchronous",
        capacity: PositiveInt = 2,
        buffer_size: PositiveInt = 4,
        max_uses: PositiveInt | None = None,
        **options: Unpack[LocalLossesOptions],
    ) -> None:
        super().__init__(**options)
        self.workers = workers
        self.mode: Mode = mode
        self.capacity = capacity
        self.buffer_size = buffer_size
        self.max_uses = float("inf") if max_uses is None else max_uses
        self.pipeline: Pipeline | None = None

    # -- set-up ----------------------------------------------------------------------------------------------------------------

    def build(self, optimizer: OptimizerFactory, schedule: Schedule) -> Iterable[OptimizerStep]:
        optimizers = list(super().build(optimizer, schedule))
        if self.workers > self.num_blocks:
            allowed = f"at most {self.num_blocks}, one for each block of this model"
            raise ConfigError([Problem("algorithm.workers", str(self.workers), allowed, f"algorithm.workers={self.num_blocks}")])
        if self.workers > 1 and any(map(is_random, self.parts)):
            raise ConfigError([_random_model("it has dropout")])
        self.factories = (optimizer, schedule)
        bounds = [round(worker * self.num_blocks / self.workers) for worker in range(self.workers + 1)]
        self.shares = [range(start, end) for start, end in pairwise(bounds)]
        self.sums = [torch.zeros(3, dtype=torch.float64) for _ in self.parts]
        own = self.shares[0]
        device = self.context.device
        for index in own:
            self.sums[index] = self.sums[index].to(device)
        self.trainer = BlockTrainer(
            [self.parts[i] for i in own], [optimizers[i] for i in own], self.loss, [self.sums[i] for i in own]
        )
        self.behind = False
        self.epoch = 0
        return optimizers

    def _start(self) -> Pipeline:
        """Start the other workers from the present state."""
        self.synchronize()  # raises if earlier workers are gone with weights that were not fetched
        self.pipeline = Pipeline(self.shares, self.capacity, self._plan)
        self.pipeline.send(Mark(EPOCH_START, self.epoch))
        return self.pipeline

    def _plan(self, rank: int, port: int) -> WorkerPlan:
        share = self.shares[rank]
        context = dataclasses.replace(self.context, generators={}, account=uncounted, device=self._device(rank))
        return WorkerPlan(
            rank=rank,
            workers=self.workers,
            port=port,
            threads=max(1, torch.get_num_threads() // self.workers),
            parts=[self.parts[index] for index in share],
            optimizer=self.factories[0],
            schedule=self.factories[1],
            context=context,
            loss=self.loss,
            loss_scaling=self.loss_scaling,
            optimizer_states=[self.optimizers[index].state_dict() for index in share],
            sums=[self.sums[index] for index in share],
            reset_epochs=self.reset_optimizer_at,
            last_reset=self.last_reset,
            mode=self.mode,
            capacity=self.capacity,
            buffer_size=self.buffer_size,
            max_uses=self.max_uses,
        )

    def _device(self, rank: int) -> torch.device:
        if self.context.device.type != "cuda":
            return self.context.device
        return torch.device("cuda", rank % torch.cuda.device_count())

    # -- training --------------------------------------------------------------------------------------------------------------

    def epoch_start(self, epoch: int) -> None:
        super().epoch_start(epoch)
        self.epoch = epoch
        if pipeline := self._running():
            pipeline.send(Mark(EPOCH_START, epoch))

    def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        pipeline = self._running()
        if pipeline is None and self.workers > 1:
            pipeline = self._start()
        before = [sums.clone() for sums in self.trainer.sums]
        outputs = self.trainer.train(inputs, targets)
        if pipeline is not None:
            pipeline.send(Batch(outputs, targets))
            self.behind = True
        metrics: dict[str, Tensor] = {}
        for index, old in zip(self.shares[0], before, strict=True):
            loss, accuracy, _ = (self.sums[index] - old) / targets.shape[0]
            metrics |= {f"block{index + 1}/loss": loss, f"block{index + 1}/accuracy": accuracy}
        # the deepest block of this process stands in for the last one on the console; records have those of the last one
        return {"loss": loss, "accuracy": accuracy, **metrics}

    def epoch_end(self, epoch: int) -> dict[str, Tensor]:
        for index in self.shares[0]:
            self.optimizers[index].schedule.epoch_end()
        if pipeline := self._running():
            self._fetch(pipeline, EPOCH_END)
        metrics = self._means()
        for sums in self.sums:
            sums.zero_()
        return {**metrics, **self.weights_epoch_end(epoch)}

    def progress_metrics(self) -> dict[str, float]:
        """The means of every block over the epoch so far; none at its end, where :meth:`epoch_end` has returned them."""
        self.synchronize()
        return {name: float(value) for name, value in self._means().items()}

    def _means(self) -> dict[str, Tensor]:
        """Loss and accuracy of every block over the epoch so far, as last fetched; ``train/loss`` is that of the last block."""
        metrics: dict[str, Tensor] = {}
        for number, sums in enumerate(self.sums, start=1):
            if sums[2] > 0:
                loss, accuracy = sums[0] / sums[2], sums[1] / sums[2]
                metrics |= {f"train/block{number}/loss": loss, f"train/block{number}/accuracy": accuracy}
                if number == self.num_blocks:
                    metrics |= {"train/loss": loss, "train/accuracy": accuracy}
        return metrics

    # -- the other processes -----------------------------------------------------------------------------------------------------

    def _running(self) -> Pipeline | None:
        """Return the pipeline if its processes are running."""
        return self.pipeline if self.pipeline is not None and self.pipeline.running else None

    @property
    def processes(self) -> list[Any]:
        """The processes of the other workers, if they are running."""
        return [] if self.pipeline is None else self.pipeline.processes

    def _fetch(self, pipeline: Pipeline, command: int) -> None:
        """Bring this process's copy of every block up to date."""
        for share, report in zip(self.shares[1:], pipeline.fetch(command, self.epoch), strict=True):
            for position, index in enumerate(share):
                self.parts[index].load_state_dict(report["parts"][position])
                self.optimizers[index].load_state_dict(report["optimizers"][position])
                self.sums[index].copy_(torch.from_numpy(report["sums"][position]))
        self.behind = False

    def synchronize(self) -> None:
        """Fetch the other workers' weights if they have changed. Raises RunFailed if a worker has failed."""
        if self.behind and self.pipeline is not None:
            self._fetch(self.pipeline, REPORT)

    def close(self) -> None:
        """Fetch what the other workers have learned, if possible, and stop them. The next step starts new ones."""
        if pipeline := self._running():
            with suppress(RunFailed):  # raised again by the next attempt to fetch their weights
                self.synchronize()
            pipeline.stop()

    # -- prediction and state ----------------------------------------------------------------------------------------------------

    @contextmanager
    def inference(self) -> Iterator[None]:
        self.synchronize()
        with super().inference():
            yield

    def state_dict(self) -> dict[str, Any]:
        self.synchronize()
        return {**super().state_dict(), "sums": [sums.clone() for sums in self.sums]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.close()
        self.behind = False
        super().load_state_dict(state)
        for sums, saved in zip(self.sums, state["sums"], strict=True):
            sums.copy_(saved)

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield problems of the pipeline, and those of :class:`LocalLosses`."""
        yield from super().check(config, root)
        for key in ("workers", "capacity", "buffer_size"):
            if config.get(key, 1) < 1:
                yield Problem(f"algorithm.{key}", str(config[key]), "at least 1", f"algorithm.{key}=2")
        if config.get("mode", "synchronous") == "asynchronous":
            yield from max_uses_problems(config)
        elif config.get("max_uses") is not None:
            description = f"{config['max_uses']} with algorithm.mode=synchronous"
            yield Problem("algorithm.max_uses", description, "there is no buffer in this mode", "algorithm.mode=asynchronous")
        if config.get("workers", 2) == 1:
            return
        if builds((root.get("schedule") or {}).get("scheduler"), torch.optim.lr_scheduler.ReduceLROnPlateau):
            description = "plateau, but only the first process of distributed_greedy gets the results of evaluations"
            yield Problem("schedule", description, "schedules that depend on epochs or steps", "schedule=multistep")
        for option in dropout_options(root.get("model") or {}):
            yield _random_model(option)


def _random_model(description: str) -> Problem:
    allowed = "without dropout: every process would draw from its own random stream"
    return Problem("model", description, allowed, "algorithm=decoupled_greedy")
