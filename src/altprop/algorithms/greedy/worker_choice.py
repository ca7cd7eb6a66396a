"""Which worker of asynchronous greedy learning works next, and how far each has come: the simulation of unequal speeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch

WorkerOrder = Literal["random", "round_robin"]


def worker_probabilities(num_workers: int, slow_worker: int | None, slowdown: float) -> list[float]:
    """How likely each worker is to be next, ``[num_workers]``, sum 1.

    All are alike, except that ``slow_worker`` (0-based) has ``1 / slowdown`` of the others' weight: with ``noise = 1 - 1 /
    slowdown`` its share is ``(1 - noise) / (K - noise)``, the others' ``1 / (K - noise)``.
    """
    weights = [1.0 / slowdown if worker == slow_worker else 1.0 for worker in range(num_workers)]
    return [weight / sum(weights) for weight in weights]


def expected_passes(probabilities: Sequence[float], capacity: int, max_reuse: float) -> float:
    """Passes of worker 1 for one pass of the slowest worker, in the long run: an estimate from above.

    Each buffer is taken for a queue of its own with room for ``capacity (max_reuse - 1)`` uses of mini-batches, which finds
    itself empty with probability ``(1 - r) / (1 - r^(room + 1))``; r are the uses that arrive over the picks of its reader. A
    buffer of one mini-batch, and one without ``max_reuse``, never runs dry.
    """
    rate = slowest = probabilities[0]
    for probability in probabilities[1:]:
        if capacity == 1 or max_reuse == float("inf"):
            rate = probability
        else:
            uses = max_reuse - 1
            load, room = min(rate * uses / probability, 10.0), int(min(capacity * uses, 100))  # enough never to run dry
            # the same fraction as above, without the hole at a load of 1
            rate = probability * (1.0 - 1.0 / sum(load**count for count in range(room + 1)))
        slowest = min(slowest, rate)
    return probabilities[0] / slowest


class WorkerChoice:
    """The sequence of workers: a warm-up 0, 0, 1, 1, …, K-1, K-1, then at random or in turn."""

    def __init__(self, probabilities: list[float], order: WorkerOrder, generator: torch.Generator) -> None:
        self.probabilities = torch.tensor(probabilities, dtype=torch.float64)
        self.order = order
        self.generator = generator
        self.warm_up: int | None = 0
        self.last = -1

    def restart(self) -> None:
        """Begin the warm-up again with the next pick."""
        self.warm_up = 0

    def next(self) -> int:
        """The next worker, 0-based. A CPU draw."""
        workers = len(self.probabilities)
        if self.warm_up is not None:
            worker = self.warm_up // 2
            self.warm_up = self.warm_up + 1 if self.warm_up < 2 * workers - 1 else None
        elif self.order == "random":
            worker = int(torch.multinomial(self.probabilities, 1, generator=self.generator))
        else:
            worker = (self.last + 1) % workers
        self.last = worker
        return worker

    def state_dict(self) -> dict[str, Any]:
        """Position in the sequence; the generator is saved by the run."""
        return {"warm_up": self.warm_up, "last": self.last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.warm_up, self.last = state["warm_up"], state["last"]


class WorkerClock:
    """How many passes every worker has made, and what follows from it (specification, section 2.6).

    A worker that has made ``steps_per_pass`` steps is due: at its next pick its pass is counted. It is frozen after ``passes``
    passes. Rounds count what all workers have finished. Where a pass brings a worker's learning rate down, the warm-up
    restarts, and from the second round on that pick does no work. Training ends when all workers are frozen. With
    ``legacy_termination`` it goes on as the published script does: until all have made one more pass, frozen, and on beyond
    that while ends coincide with a decay.
    """

    def __init__(self, num_workers: int, steps_per_pass: int, passes: int, legacy_termination: bool = False) -> None:
        self.steps_per_pass = steps_per_pass
        self.passes = passes
        self.legacy_termination = legacy_termination
        self.steps = [0] * num_workers
        self.done = [0] * num_workers
        self.due = [False] * num_workers
        self.round = 0
        self.finished = False

    def is_frozen(self, worker: int) -> bool:
        """Whether ``worker`` only passes features on."""
        return self.done[worker] >= self.passes

    def begin(self, worker: int, decays: Callable[[int], bool]) -> bool:
        """Settle what is due when ``worker`` is picked; whether the pick does no work.

        ``decays(worker)`` ends the worker's pass and says whether that lowered its learning rate.
        """
        if not self.due[worker]:
            return False
        self.due[worker] = False
        running, skip = True, False
        if min(self.done) >= self.round:
            running = self.round <= self.passes
            self.round += 1
        if decays(worker):
            skip = self.round > 1
            running = True
        self.done[worker] += 1
        if self.legacy_termination:
            self.finished = self.finished or not running
        else:
            self.finished = all(self.is_frozen(other) for other in range(len(self.done)))
        return skip

    def end(self, worker: int) -> None:
        """Count a step of ``worker``."""
        self.steps[worker] = (self.steps[worker] + 1) % self.steps_per_pass
        self.due[worker] = self.due[worker] or self.steps[worker] == 0

    def state_dict(self) -> dict[str, Any]:
        """All counters."""
        return {
            "steps": list(self.steps),
            "done": list(self.done),
            "due": list(self.due),
            "round": self.round,
            "finished": self.finished,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.steps, self.done, self.due = list(state["steps"]), list(state["done"]), list(state["due"])
        self.round, self.finished = state["round"], state["finished"]
