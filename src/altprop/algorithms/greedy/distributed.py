"""Decoupled greedy learning on several processes: blocks work at the same time, each on the newest features it has."""

from __future__ import annotations

import atexit
import dataclasses
import multiprocessing
import pickle
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.distributed
from torch import Tensor

from altprop.algorithms.base import Loss
from altprop.algorithms.context import Capabilities, uncounted
from altprop.algorithms.greedy.feature_channel import Batch, Mark, Outbox
from altprop.algorithms.greedy.local_losses import HeadFactory, LocalLosses
from altprop.algorithms.greedy.replay_buffer import reuse_problems
from altprop.algorithms.greedy.worker import (
    EPOCH_END,
    EPOCH_START,
    REPORT,
    STOP,
    TIMEOUT,
    BlockTrainer,
    Mode,
    WorkerPlan,
    process_group,
    unpack,
)
from altprop.algorithms.greedy.worker import main as worker_main
from altprop.algorithms.loss_scaling import LossScaling
from altprop.algorithms.optimization import OptimizerFactory, OptimizerStep
from altprop.algorithms.replaying import is_random
from altprop.algorithms.schedule import Schedule
from altprop.names import builds
from altprop.nn.heads.ensemble import EnsembleOf
from altprop.nn.heads.local import mlp_sr_head
from altprop.nn.weights.base import WeightsRule
from altprop.problems import ConfigError, Problem, RunFailed


class DistributedGreedy(LocalLosses):
    """A pipeline of ``workers`` processes, each with consecutive blocks, their heads and optimizers.

    This process is the first worker: it trains its blocks on the data and sends features on through queues of ``capacity``
    mini-batches; nothing comes back. ``synchronous``: every block trains on every mini-batch once, in order, which gives the
    weights of :class:`~altprop.algorithms.greedy.decoupled.DecoupledGreedy` to the last bit. ``asynchronous``: a worker puts
    what arrives into a replay buffer of ``buffer_size`` mini-batches and trains on it without waiting, one step per step of
    the epoch, each mini-batch ``max_reuse`` - 1 times at most; no two runs are alike. At the end of an epoch, and whenever the
    model is evaluated or saved, the other workers' weights are fetched. Metrics of their blocks are those of whole epochs.
    With several CUDA devices worker n uses device n, modulo their number. Dense weights only. Several processes refuse models
    with dropout, as every process draws from a stream of its own, and plateau schedules, as only this one hears of evaluations.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        amp=True, clip=True, probe=False, in_process=False, weights_rules=False, needs_blocks=True
    )

    def __init__(
        self,
        *,
        workers: int = 2,
        mode: Mode = "synchronous",
        capacity: int = 2,
        buffer_size: int = 4,
        max_reuse: int | None = None,
        head: HeadFactory = mlp_sr_head,
        block_size: int = 1,
        cut_points: Sequence[int] | None = None,
        ensemble: EnsembleOf | None = "probabilities",
        reset_optimizer_at: Sequence[int] = (),
        loss_scaling: LossScaling | None = None,
        master_weights: bool = False,
        loss: Loss | None = None,
        weights: WeightsRule | None = None,
        estimator: object | None = None,
    ) -> None:
        super().__init__(
            head=head,
            block_size=block_size,
            cut_points=cut_points,
            ensemble=ensemble,
            reset_optimizer_at=reset_optimizer_at,
            loss_scaling=loss_scaling,
            master_weights=master_weights,
            loss=loss,
            weights=weights,
            estimator=estimator,
        )
        self.workers = workers
        self.mode: Mode = mode
        self.capacity = capacity
        self.buffer_size = buffer_size
        self.max_reuse = float("inf") if max_reuse is None else max_reuse
        self.processes: list[Any] = []

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

    def _start(self) -> None:
        """Start the other workers from the present state."""
        self.synchronize()  # complains where workers have gone with something that was not fetched
        store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=TIMEOUT)
        spawn = multiprocessing.get_context("spawn")
        self.pipes = []
        for rank in range(1, self.workers):
            mine, theirs = spawn.Pipe(duplex=False)
            # pickled here, by value: multiprocessing itself would let both processes share the parameters
            process = spawn.Process(target=worker_main, args=(pickle.dumps(self._plan(rank, store.port)), theirs), daemon=True)
            process.start()
            theirs.close()
            self.processes.append(process)
            self.pipes.append(mine)
        self.at_exit = partial(_end, weakref.WeakMethod(self._stop), self.processes)
        atexit.register(self.at_exit)
        self.store = store  # the other processes meet there
        self.outbox = Outbox(process_group(0, self.workers, store), 1, self.capacity) if self.workers > 1 else None
        self._tell(EPOCH_START, self.epoch)

    def _plan(self, rank: int, port: int) -> WorkerPlan:
        share = self.shares[rank]
        context = dataclasses.replace(self.context, generators={}, account=uncounted, device=self._device(rank))
        return WorkerPlan(
            rank=rank,
            workers=self.workers,
            port=port,
            threads=max(1, torch.get_num_threads() // self.workers),
            first_block=share.start,
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
            max_reuse=self.max_reuse,
        )

    def _device(self, rank: int) -> torch.device:
        if self.context.device.type != "cuda":
            return self.context.device
        return torch.device("cuda", rank % torch.cuda.device_count())

    # -- training --------------------------------------------------------------------------------------------------------------

    def epoch_start(self, epoch: int) -> None:
        super().epoch_start(epoch)
        self.epoch = epoch
        self._tell(EPOCH_START, epoch)

    def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        if self.workers > 1 and not self.processes:
            self._start()
        before = [sums.clone() for sums in self.trainer.sums]
        outputs = self.trainer.train(inputs, targets)
        if self.processes:
            self._send(Batch(outputs, targets))
            self.behind = True
        metrics: dict[str, Tensor] = {}
        for index, old in zip(self.shares[0], before, strict=True):
            loss, accuracy, _ = (self.sums[index] - old) / targets.shape[0]
            metrics |= {f"block{index + 1}/loss": loss, f"block{index + 1}/accuracy": accuracy}
        # the deepest block of this process stands in until the epoch's end brings that of the last one
        return {"loss": loss, "accuracy": accuracy, **metrics}

    def epoch_end(self, epoch: int) -> dict[str, Tensor]:
        for index in self.shares[0]:
            self.optimizers[index].schedule.epoch_end()
        if self.processes:
            self._fetch(EPOCH_END)
        metrics: dict[str, Tensor] = {}
        for number, sums in enumerate(self.sums, start=1):
            if sums[2] > 0:
                metrics[f"train/block{number}/loss"], metrics[f"train/block{number}/accuracy"] = (
                    sums[0] / sums[2],
                    sums[1] / sums[2],
                )
                if number == self.num_blocks:
                    metrics["train/loss"], metrics["train/accuracy"] = sums[0] / sums[2], sums[1] / sums[2]
            sums.zero_()
        return {**metrics, **self.weights_epoch_end(epoch)}

    # -- the other processes -----------------------------------------------------------------------------------------------------

    def _tell(self, word: int, value: int) -> None:
        if self.processes:
            self._send(Mark(word, value))

    def _send(self, message: Batch | Mark) -> None:
        assert self.outbox is not None
        try:
            self.outbox.send(message)
        except RuntimeError as error:
            raise RunFailed(self._complaint() or f"a worker of algorithm=distributed_greedy is gone: {error}") from error

    def _complaint(self) -> str | None:
        """What a worker that failed had to say."""
        for rank, pipe in enumerate(self.pipes, start=1):
            try:
                while pipe.poll(1.0):
                    report = pipe.recv()
                    if "error" in report:
                        blocks = self.shares[rank]
                        return f"the worker of blocks {blocks.start + 1} to {blocks.stop} failed: {report['error']}"
            except EOFError:
                continue
        return None

    def _fetch(self, word: int) -> None:
        """Bring this process's copy of every block up to date."""
        self._tell(word, self.epoch)
        for share, pipe in zip(self.shares[1:], self.pipes, strict=True):
            try:
                report = unpack(pipe.recv())
            except EOFError:
                report = {"error": "it is gone"}
            if "error" in report:
                raise RunFailed(f"the worker of blocks {share.start + 1} to {share.stop} failed: {report['error']}")
            for position, index in enumerate(share):
                self.parts[index].load_state_dict(report["parts"][position])
                self.optimizers[index].load_state_dict(report["optimizers"][position])
                self.sums[index].copy_(torch.from_numpy(report["sums"][position]))
        self.behind = False

    def synchronize(self) -> None:
        """Fetch the other workers' weights if they have moved on."""
        if self.behind:
            self._fetch(REPORT)

    def close(self) -> None:
        """Fetch what the other workers have learned, if they can still say, and stop them; the next step starts them anew."""
        if self.processes:
            with suppress(RunFailed):  # whoever asks for what they had learned will be told
                self.synchronize()
            self._stop()

    def _stop(self) -> None:
        if not self.processes:
            return
        atexit.unregister(self.at_exit)
        with suppress(RuntimeError, RunFailed):  # a worker that has failed cannot be told
            self._tell(STOP, 0)
            assert self.outbox is not None
            self.outbox.flush()
        for process in self.processes:
            process.join(timeout=10)
        _end(None, self.processes)
        self.processes, self.outbox = [], None

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
        """Problems of the pipeline, and those of all local losses."""
        yield from super().check(config, root)
        for key in ("workers", "capacity", "buffer_size"):
            if config.get(key, 1) < 1:
                yield Problem(f"algorithm.{key}", str(config[key]), "at least 1", f"algorithm.{key}=2")
        if config.get("mode", "synchronous") == "asynchronous":
            yield from reuse_problems(config)
        elif config.get("max_reuse") is not None:
            given = f"{config['max_reuse']} with algorithm.mode=synchronous"
            yield Problem("algorithm.max_reuse", given, "nothing is reused there", "algorithm.mode=asynchronous")
        if config.get("workers", 2) == 1:
            return
        if builds((root.get("schedule") or {}).get("scheduler"), torch.optim.lr_scheduler.ReduceLROnPlateau):
            given = "plateau, of which distributed_greedy tells the first of its processes alone"
            yield Problem("schedule", given, "schedules that go by epochs or steps", "schedule=multistep")
        for name, value in (root.get("model") or {}).items():
            if "dropout" in name and isinstance(value, int | float) and value > 0:
                yield _random_model(f"{name}={value}")


def _random_model(given: str) -> Problem:
    allowed = "without dropout: every process would draw from a stream of its own"
    return Problem("model", given, allowed, "algorithm=decoupled_greedy")


def _end(stop: Callable[[], Callable[[], None] | None] | None, processes: Iterable[Any]) -> None:
    """Stop ``processes`` properly with what ``stop`` returns, if that is still there, and whatever is left by force."""
    properly = None if stop is None else stop()
    if properly is not None:
        properly()
    for process in processes:
        if process.is_alive():
            process.kill()
