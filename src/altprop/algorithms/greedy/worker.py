"""A process that trains some blocks in decoupled greedy learning. Features arrive from the previous worker and go to the next."""

from __future__ import annotations

import datetime
import io
import queue
import signal
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed
from torch import Tensor, nn

from altprop.algorithms.base import Loss, top1
from altprop.algorithms.context import Context
from altprop.algorithms.greedy.feature_channel import Batch, Inbox, Mark, Outbox
from altprop.algorithms.greedy.packing import pack
from altprop.algorithms.greedy.replay_buffer import ReplayBuffer
from altprop.algorithms.loss_scaling import LossScaling
from altprop.algorithms.master_weights import block_optimizer
from altprop.algorithms.numerics import configure_numerics
from altprop.algorithms.optimization import OptimizerFactory, OptimizerStep
from altprop.algorithms.schedule import Schedule
from altprop.allocator import keep_freed_memory
from altprop.nn.weights.base import Dense
from altprop.seeding import derive_seed

EPOCH_START, EPOCH_END, REPORT, STOP = range(4)
"""Commands of the marks that travel through the pipeline."""

Mode = Literal["synchronous", "asynchronous"]
TIMEOUT = datetime.timedelta(minutes=30)


@dataclass(frozen=True)
class WorkerPlan:
    """Everything that a worker needs. Sent to its process once. ``parts`` return (output, scores) of one block each."""

    rank: int
    workers: int
    port: int
    threads: int
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
    max_uses: float


def process_group(rank: int, workers: int, store: torch.distributed.Store) -> Any:
    """Return a gloo group of the workers, separate from any default group of the process."""
    prefixed = torch.distributed.PrefixStore("greedy", store)
    return torch.distributed.ProcessGroupGloo(prefixed, rank, workers, TIMEOUT)


class BlockTrainer:
    """Trains consecutive blocks, each on its own loss, on features without a graph."""

    def __init__(self, parts: list[nn.Module], optimizers: list[OptimizerStep], loss: Loss, sums: list[Tensor]) -> None:
        self.parts = parts
        self.optimizers = optimizers
        self.loss = loss
        self.sums = sums
        """Sums over the epoch for each block, ``[3]`` in float64: loss times samples, accuracy times samples, samples."""

    def train(self, features: Tensor, targets: Tensor) -> Tensor:
        """Update every block once. Returns the output of the last one."""
        for part, optimization, sums in zip(self.parts, self.optimizers, self.sums, strict=True):
            optimization.zero_grad()
            with optimization.autocast():
                outputs, scores = part(features)
                loss = self.loss(scores, targets)
            optimization.backward(loss)
            optimization.step()
            count = targets.shape[0]
            means = torch.stack([loss.detach().double(), top1(scores, targets).double(), loss.new_ones((), dtype=torch.float64)])
            sums += means * count
            features = outputs.detach()
        return features


class Worker:
    """The main loop of a worker's process."""

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
        """Work until the command to stop arrives."""
        arrived: queue.Queue[Batch | Mark | Exception] = queue.Queue(self.plan.capacity)
        if self.plan.mode == "asynchronous":
            threading.Thread(target=self._receive, args=(arrived,), daemon=True).start()
        message: Batch | Mark | Exception
        while True:
            if self.plan.mode == "synchronous":
                message = self.inbox.receive()
            elif arrived.empty() and self._train_from_buffer():
                continue
            else:
                message = arrived.get()
            if isinstance(message, Exception):
                raise message
            if isinstance(message, Batch):
                self._accept(message)
                continue
            if message.command == EPOCH_END:
                while self._train_from_buffer():
                    pass
            self._execute(message)
            if self.outbox is not None:
                self.outbox.send(message)
            if message.command == STOP:
                break
        if self.outbox is not None:
            self.outbox.flush()

    def _receive(self, arrived: queue.Queue[Batch | Mark | Exception]) -> None:
        """Collect messages in a thread while the worker trains, because gloo cannot tell whether a message is waiting."""
        message: Batch | Mark | None = None
        while not (isinstance(message, Mark) and message.command == STOP):
            try:
                message = self.inbox.receive()
            except Exception as error:  # passed on to the worker, which waits for messages
                arrived.put(error)
                break
            arrived.put(message)

    def _accept(self, batch: Batch) -> None:
        if self.plan.mode == "synchronous":
            self._train(batch.features, batch.targets)
        else:
            self.buffer.add(batch.features, batch.targets)

    def _train_from_buffer(self) -> bool:
        """Make one step on the buffer. Returns False if no step of this epoch is left or there is no mini-batch to train on."""
        if self.plan.mode == "synchronous" or self.steps >= self.plan.context.steps_per_epoch:
            return False
        sample = self.buffer.get(self.plan.max_uses)
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

    def _execute(self, mark: Mark) -> None:
        """Carry out the command of ``mark``."""
        if mark.command == EPOCH_START:
            for part in self.trainer.parts:
                part.train()
            if mark.value in self.plan.reset_epochs and mark.value > self.last_reset:
                self.last_reset = mark.value
                for optimizer in self.trainer.optimizers:
                    optimizer.forget()
        elif mark.command == EPOCH_END:
            for optimizer in self.trainer.optimizers:
                optimizer.schedule.epoch_end()
            self._report()
            for sums in self.trainer.sums:
                sums.zero_()
            self.steps = 0
        elif mark.command == REPORT:
            self._report()

    def _report(self) -> None:
        self.reports.send(
            {
                "parts": [pack(part.state_dict()) for part in self.trainer.parts],
                "optimizers": [pack(optimizer.state_dict()) for optimizer in self.trainer.optimizers],
                "sums": [value.cpu().numpy() for value in self.trainer.sums],
            }
        )


def pickled(plan: WorkerPlan) -> bytes:
    """Return ``plan`` by value; multiprocessing itself would share the parameters between the processes."""
    stream = io.BytesIO()
    torch.save(plan, stream)
    return stream.getvalue()


def unpickled(content: bytes) -> WorkerPlan:
    """Return the plan from :func:`pickled`, with all tensors on the CPU. Plain unpickling would put them on the sender's GPU."""
    plan: WorkerPlan = torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)  # from the process that started us
    return plan


def configure_process(plan: WorkerPlan) -> None:
    """Set threads, memory, numerics and the random stream of a worker's process as the first process has set its own."""
    torch.set_num_threads(plan.threads)
    keep_freed_memory()
    configure_numerics(plan.context.precision, deterministic=plan.context.deterministic)
    if plan.context.device.type == "cuda":
        torch.cuda.set_device(plan.context.device)
    torch.manual_seed(derive_seed(plan.context.seed, "noise", plan.rank))


def main(content: bytes, reports: Any) -> None:
    """Run a worker's process. ``content`` is its plan. An error is sent as one line before the process ends.

    Requests to stop reach every process of a terminal or a job. The worker ignores them, because the first process saves
    everything and then stops it.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    try:
        plan = unpickled(content)
        configure_process(plan)
        Worker(plan, reports).run()
    except Exception as error:
        with suppress(OSError):  # the first process may be gone
            reports.send({"error": f"{type(error).__name__}: {error}"})
        raise SystemExit(1) from None
