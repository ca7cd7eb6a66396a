"""The order and progress of workers in asynchronous greedy learning, which simulates workers of unequal speed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch

WorkerOrder = Literal["random", "round_robin"]


def worker_probabilities(num_workers: int, slow_worker: int | None, slowdown: float) -> list[float]:
    """Return the probability of each worker to be next, ``[num_workers]``.

    All workers are equal, except that ``slow_worker`` (0-based) is ``slowdown`` times less likely: with ``noise = 1 - 1 /
    slowdown`` its probability is ``(1 - noise) / (K - noise)``, and that of the others ``1 / (K - noise)``.
    """
    weights = [1.0 / slowdown if worker == slow_worker else 1.0 for worker in range(num_workers)]
    return [weight / sum(weights) for weight in weights]


def expected_passes(probabilities: Sequence[float], capacity: int, max_uses: float) -> float:
    """Return an upper estimate of the passes of worker 1 per pass of the slowest worker, in the long run.

    Each buffer is modeled as an independent queue with room for ``capacity * max_uses`` uses of mini-batches. It is empty with
    probability ``(1 - r) / (1 - r^(room + 1))``, where r is the ratio of the uses that arrive to the picks of its reader. A
    buffer of one mini-batch, and one without a limit on uses, is never empty.
    """
    rate = slowest = probabilities[0]
    for probability in probabilities[1:]:
        if capacity == 1 or max_uses == float("inf"):
            rate = probability
        else:
            # a load of 10 and a room of 100 are practically never empty
            load, room = min(rate * max_uses / probability, 10.0), int(min(capacity * max_uses, 100))
            # the fraction above in a form that is defined at a load of 1
            rate = probability * (1.0 - 1.0 / sum(load**count for count in range(room + 1)))
        slowest = min(slowest, rate)
    return probabilities[0] / slowest


class WorkerChoice:
    """The sequence of workers: a warm-up 0, 0, 1, 1, …, K-1, K-1, followed by a random or cyclic order."""

    def __init__(self, probabilities: list[float], order: WorkerOrder, generator: torch.Generator) -> None:
        self.probabilities = torch.tensor(probabilities, dtype=torch.float64)
        self.order = order
        self.generator = generator
        self.warm_up: int | None = 0
        self.last = -1

    def restart(self) -> None:
        """Start the warm-up again with the next pick."""
        self.warm_up = 0

    def next(self) -> int:
        """Return the next 0-based worker. Random numbers are drawn on the CPU."""
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
        """Return the position in the sequence. The run saves the generator."""
        return {"warm_up": self.warm_up, "last": self.last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.warm_up, self.last = state["warm_up"], state["last"]


class WorkerClock:
    """Counts the passes of every worker and decides when workers are frozen and training ends (specification, section 2.6).

    A worker that has made ``steps_per_pass`` steps is due: its pass is counted at its next pick. It is frozen after ``passes``
    passes. Rounds count the passes that all workers have finished. If the end of a pass lowers a worker's learning rate, the
    warm-up restarts, and from the second round on that pick does no work. Training ends when all workers are frozen. With
    ``legacy_termination`` it continues as in the published script: until all frozen workers have made one more pass, and beyond
    that as long as ends of passes coincide with a decay.
    """

    def __init__(self, num_workers: int, steps_per_pass: int, passes: int, legacy_termination: bool = False) -> None:
        self.steps_per_pass = steps_per_pass
        self.passes = passes
        self.legacy_termination = legacy_termination
        self.steps = [0] * num_workers
        self.done = [0] * num_workers
        self.due = [False] * num_workers
        self.round = 0
        self.round_ended = False
        """Whether all workers have finished a round since this was last set to False."""
        self.finished = False

    def is_frozen(self, worker: int) -> bool:
        """Whether ``worker`` no longer trains and only passes features on."""
        return self.done[worker] >= self.passes

    def begin(self, worker: int, decays: Callable[[int], bool]) -> bool:
        """Count a pass that is due when ``worker`` is picked. Returns whether the pick does no work.

        ``decays(worker)`` ends the worker's pass and returns whether that lowered its learning rate.
        """
        if not self.due[worker]:
            return False
        self.due[worker] = False
        running, skip = True, False
        if min(self.done) >= self.round:
            running = self.round <= self.passes
            self.round_ended = self.round_ended or self.round > 0
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
        """Return all counters."""
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
