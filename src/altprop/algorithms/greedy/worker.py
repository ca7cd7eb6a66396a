"""A process that trains some blocks of decoupled greedy learning: features come in from below, updates stay, features go out."""

from __future__ import annotations

import datetime
import pickle
import queue
import signal
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed
from torch import Tensor, nn

from altprop.algorithms.base import Loss, top1
from altprop.algorithms.context import Context
from altprop.algorithms.greedy.feature_channel import Batch, Inbox, Mark, Outbox
from altprop.algorithms.greedy.replay_buffer import ReplayBuffer
from altprop.algorithms.loss_scaling import LossScaling
from altprop.algorithms.master_weights import block_optimizer
from altprop.algorithms.optimization import OptimizerFactory, OptimizerStep
from altprop.algorithms.schedule import Schedule
from altprop.nn.weights.base import Dense
from altprop.seeding import derive_seed

EPOCH_START, EPOCH_END, REPORT, STOP = range(4)
"""Words of the marks that travel through the pipeline."""

Mode = Literal["synchronous", "asynchronous"]
TIMEOUT = datetime.timedelta(minutes=30)


@dataclass(frozen=True)
class WorkerPlan:
    """Everything a worker needs; sent to its process once. ``parts`` give (output, scores) of each of its blocks."""

    rank: int
    workers: int
    port: int
    threads: int
    first_block: int
    parts: list[nn.Module]
    optimizer: OptimizerFactory
    schedule: Schedule
    context: Context
    loss: Loss
    loss_scaling: LossScaling | None
    optimizer_states: list[dict[str, Any]]
    sums: list[Tensor]
    reset_epochs: frozenset[int]
    last_reset: int
    mode: Mode
    capacity: int
    buffer_size: int
    max_reuse: float


def process_group(rank: int, workers: int, store: torch.distributed.Store) -> Any:
    """A gloo group of its own, beside whatever default group the process may have."""
    prefixed = torch.distributed.PrefixStore("greedy", store)
    return torch.distributed.ProcessGroupGloo(prefixed, rank, workers, TIMEOUT)


class BlockTrainer:
    """Trains consecutive blocks on features that carry no graph, each on its own loss."""

    def __init__(self, parts: list[nn.Module], optimizers: list[OptimizerStep], loss: Loss, sums: list[Tensor]) -> None:
        self.parts = parts
        self.optimizers = optimizers
        self.loss = loss
        self.sums = sums
        """Of each block over the epoch: loss and accuracy times samples, samples; ``[3]`` in float64."""

    def train(self, features: Tensor, targets: Tensor) -> Tensor:
        """One update of every block; what the last one hands on."""
        for part, optimization, sums in zip(self.parts, self.optimizers, self.sums, strict=True):
            optimization.zero_grad()
            with optimization.autocast():
                outputs, scores = part(features)
                loss = self.loss(scores, targets)
            optimization.backward(loss)
            optimization.step()
            count = targets.shape[0]
            seen = torch.stack([loss.detach().double(), top1(scores, targets).double(), loss.new_ones((), dtype=torch.float64)])
            sums += seen * count
            features = outputs.detach()
        return features


class Worker:
    """The loop of one process."""

    def __init__(self, plan: WorkerPlan, reports: Any) -> None:
        store = torch.distributed.TCPStore("127.0.0.1", plan.port, is_master=False, timeout=TIMEOUT)
        group = process_group(plan.rank, plan.workers, store)
        self.plan = plan
        self.reports = reports
        self.inbox = Inbox(group, plan.rank - 1)
        self.outbox = Outbox(group, plan.rank + 1, plan.capacity) if plan.rank + 1 < plan.workers else None
        optimizers = []
        for part, state in zip(plan.parts, plan.optimizer_states, strict=True):
            part.to(plan.context.device)
            step = block_optimizer(part.parameters(), plan.optimizer, plan.schedule, Dense(), plan.context, plan.loss_scaling)
            step.load_state_dict(state)
            optimizers.append(step)
        self.trainer = BlockTrainer(plan.parts, optimizers, plan.loss, [value.to(plan.context.device) for value in plan.sums])
        self.last_reset = plan.last_reset
        self.buffer = ReplayBuffer(plan.buffer_size)
        self.steps = 0

    def run(self) -> None:
        """Work until told to stop."""
        arrived: queue.Queue[Batch | Mark | Exception] = queue.Queue(self.plan.capacity)
        if self.plan.mode == "asynchronous":
            threading.Thread(target=self._receive, args=(arrived,), daemon=True).start()
        message: Batch | Mark | Exception
        while True:
            if self.plan.mode == "synchronous":
                message = self.inbox.receive()
            elif arrived.empty() and self._replay():
                continue
            else:
                message = arrived.get()
            if isinstance(message, Exception):
                raise message
            if isinstance(message, Batch):
                self._take(message)
                continue
            if message.word == EPOCH_END:
                while self._replay():
                    pass
            self._obey(message)
            if self.outbox is not None:
                self.outbox.send(message)
            if message.word == STOP:
                break
        if self.outbox is not None:
            self.outbox.flush()

    def _receive(self, arrived: queue.Queue[Batch | Mark | Exception]) -> None:
        """Put messages aside while the worker trains; gloo cannot say whether one is waiting."""
        message: Batch | Mark | None = None
        while not (isinstance(message, Mark) and message.word == STOP):
            try:
                message = self.inbox.receive()
            except Exception as error:  # the worker that waits for messages must hear of it
                arrived.put(error)
                break
            arrived.put(message)

    def _take(self, batch: Batch) -> None:
        if self.plan.mode == "synchronous":
            self._train(batch.features, batch.targets)
        else:
            self.buffer.add(batch.features, batch.targets)

    def _replay(self) -> bool:
        """One step on the buffer, if this epoch's steps are not all made and there is something to train on."""
        if self.plan.mode == "synchronous" or self.steps >= self.plan.context.steps_per_epoch:
            return False
        sample = self.buffer.get(self.plan.max_reuse)
        if sample is None:
            return False
        self._train(*sample)
        return True

    def _train(self, features: Tensor, targets: Tensor) -> None:
        device = self.plan.context.device
        outputs = self.trainer.train(features.to(device), targets.to(device))
        self.steps += 1
        if self.outbox is not None:
            self.outbox.send(Batch(outputs, targets))

    def _obey(self, mark: Mark) -> None:
        if mark.word == EPOCH_START:
            for part in self.trainer.parts:
                part.train()
            if mark.value in self.plan.reset_epochs and mark.value > self.last_reset:
                self.last_reset = mark.value
                for optimizer in self.trainer.optimizers:
                    optimizer.forget()
        elif mark.word == EPOCH_END:
            for optimizer in self.trainer.optimizers:
                optimizer.schedule.epoch_end()
            self._report()
            for sums in self.trainer.sums:
                sums.zero_()
            self.steps = 0
        elif mark.word == REPORT:
            self._report()

    def _report(self) -> None:
        self.reports.send(
            {
                "parts": [_host(part.state_dict()) for part in self.trainer.parts],
                "optimizers": [_host(optimizer.state_dict()) for optimizer in self.trainer.optimizers],
                "sums": [value.cpu().numpy() for value in self.trainer.sums],
            }
        )


def _host(value: Any) -> Any:
    """``value`` with its tensors as NumPy arrays in pickles: nothing is left in memory that two processes share."""
    if isinstance(value, Tensor):
        return Arrays(value)
    if isinstance(value, Mapping):
        return {key: _host(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_host(item) for item in value)
    return value


class Arrays:
    """A tensor on its way through a pipe, by value."""

    def __init__(self, tensor: Tensor) -> None:
        self.dtype = tensor.dtype
        self.shape = tuple(tensor.shape)
        self.data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()

    def tensor(self) -> Tensor:
        """The tensor again."""
        return torch.frombuffer(bytearray(self.data), dtype=self.dtype).reshape(self.shape) if self.data else torch.empty(0)


def unpack(value: Any) -> Any:
    """The inverse of what a report went through."""
    if isinstance(value, Arrays):
        return value.tensor()
    if isinstance(value, Mapping):
        return {key: unpack(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(unpack(item) for item in value)
    return value


def main(pickled: bytes, reports: Any) -> None:
    """The body of a worker's process: ``pickled`` is its plan. An error is sent as one line before the process ends.

    Requests to stop reach every process of a terminal or a job; the first process saves everything and then stops this one.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    try:
        plan: WorkerPlan = pickle.loads(pickled)
        torch.set_num_threads(plan.threads)
        torch.manual_seed(derive_seed(plan.context.seed, "noise", plan.rank))
        Worker(plan, reports).run()
    except Exception as error:
        with suppress(OSError):  # the process to tell is gone itself
            reports.send({"error": f"{type(error).__name__}: {error}"})
        raise SystemExit(1) from None
