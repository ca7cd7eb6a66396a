"""The training loop: moves batches, calls the step, evaluates, logs, saves, stops. It knows nothing of gradients or layers."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from itertools import islice

from torch import Tensor

from altprop.algorithms.alignment_probe import AlignmentProbe
from altprop.algorithms.base import Algorithm
from altprop.data.base import Data, Split
from altprop.problems import RunFailed
from altprop.tracking.base import Tracker
from altprop.training.cost import StepCosts, countable
from altprop.training.evaluation import evaluate
from altprop.training.meter import Meter, NotFinite
from altprop.training.plan import Plan
from altprop.training.processes import agreed_signal, assert_identical, share_running_statistics
from altprop.training.profiling import Profiler
from altprop.training.progress import Progress
from altprop.training.saving import Saver
from altprop.training.selection import is_better, monitored_value, selection_metric, warn_of_stopping_on_test
from altprop.training.settings import TrainerSettings
from altprop.training.signals import StopRequests

log = logging.getLogger(__name__)

STATUS_EVERY = 10.0
"""Seconds between two updates of ``status.json`` during an epoch."""


class TrainingClock:
    """Measures ``progress.train_seconds``: the time of training steps, without evaluation, logging and saving."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.started = time.perf_counter()

    def start(self) -> None:
        """Count from now on."""
        self.started = time.perf_counter()

    def stop(self) -> None:
        """Add the time since the last start."""
        self.progress.train_seconds += time.perf_counter() - self.started

    def exclude(self, seconds: float) -> None:
        """Do not count ``seconds`` of the time since the last start."""
        self.started += seconds

    @property
    def seconds(self) -> float:
        """The training time so far, while the clock is running."""
        return self.progress.train_seconds + time.perf_counter() - self.started


class Loop:
    """Trains ``algorithm`` on ``data`` from the position in ``progress`` until the plan is complete or a stop is requested."""

    def __init__(
        self,
        algorithm: Algorithm,
        data: Data,
        settings: TrainerSettings,
        plan: Plan,
        progress: Progress,
        tracker: Tracker,
        saver: Saver,
        profiler: Profiler,
        costs: StepCosts,
    ) -> None:
        self.algorithm = algorithm
        self.data = data
        self.settings = settings
        self.plan = plan
        self.progress = progress
        self.tracker = tracker
        self.saver = saver
        self.profiler = profiler
        self.probe = AlignmentProbe(algorithm)
        self.world_size = algorithm.context.world_size
        self.meter = Meter(self.world_size)
        self.stop_signal: int | None = None
        self.learning_rate = algorithm.learning_rate
        """The learning rate of the last step. After a step, the algorithm itself may have that of the next one."""
        self.clock = TrainingClock(progress)
        self.started = time.perf_counter() - progress.seconds
        self.status_written = time.perf_counter()
        if progress.meter:
            self.meter.load_state_dict(progress.meter, algorithm.context.device)
        if progress.step == 0 and countable(algorithm):
            progress.flops = 0
        self.costs = costs
        if progress.flops is not None:
            costs.start(progress.flops_by_kind)
        self.select_by = selection_metric(settings.select_on, data.validation is not None)
        if settings.early_stopping is not None:
            warn_of_stopping_on_test(settings.early_stopping.metric)

    def run(self, requests: StopRequests) -> None:
        """Train until done or until ``requests`` holds a signal. Everything is saved on return."""
        self.started = time.perf_counter() - self.progress.seconds
        self._check_requests(requests)
        while not self.done and self.stop_signal is None:
            self._epoch(self.progress.epoch, requests)
        self._save()

    @property
    def done(self) -> bool:
        """Whether training is complete."""
        return self.progress.step >= self.plan.total_steps or self.algorithm.finished or self.progress.stopped_early

    def _epoch(self, epoch: int, requests: StopRequests) -> None:
        """Train the rest of ``epoch``, or up to a request to stop."""
        self.algorithm.epoch_start(epoch)
        if self.settings.evaluate_first and self.progress.step == 0:
            # Not earlier, because weights from another run are only in place after the first epoch has started.
            self._log(self._stamp(self._evaluations()))
        self.clock.start()
        for inputs, targets in self._batches(epoch):
            self._step(inputs, targets)
            self._check_requests(requests)
            step = self.progress.step
            if step % self.settings.log_every == 0:
                self._show_progress()
            epoch_done = self.progress.step_in_epoch == self.plan.steps_per_epoch or self.done
            if epoch_done or self._evaluates_at(step) or self.plan.save_at(step):
                self._pause(epoch, epoch_done)
            if self.stop_signal is not None or self.done or epoch_done:
                break
        self.clock.stop()

    def _batches(self, epoch: int) -> Iterable[tuple[Tensor, Tensor]]:
        """The mini-batches of ``epoch`` that are still to come."""
        position = self.progress.step_in_epoch
        batches = self.data.train.batches(0 if self.settings.overfit else epoch, position)
        return islice(batches, self.plan.steps_per_epoch - position)

    def _step(self, inputs: Tensor, targets: Tensor) -> None:
        """Train on one mini-batch, with the alignment probe if it is due."""
        progress = self.progress
        probed = self.plan.probe_at(progress.step)
        self.learning_rate = self.algorithm.learning_rate
        metrics = self.probe.step(inputs, targets, self._train_step) if probed else self._train_step(inputs, targets)
        self.meter.update(metrics, targets.shape[0])
        self.profiler.step()
        progress.step += 1
        progress.step_in_epoch += 1
        if probed:
            self.clock.exclude(self.probe.seconds)
            if self.probe.alignments:
                self._log(self._stamp(self.probe.alignments))

    def _pause(self, epoch: int, epoch_done: bool) -> None:
        """Between two steps: end the epoch if ``epoch_done``, evaluate and save if that is due."""
        progress, step = self.progress, self.progress.step
        self._guard(self.meter.flush())
        self.clock.stop()
        own: Mapping[str, Tensor] = {}
        if epoch_done:
            own = self.algorithm.epoch_end(epoch)
            progress.epoch, progress.step_in_epoch = epoch + 1, 0
        best = False
        if self._evaluates_at(step) or self.done:
            best = self._record(own)
        elif own:
            self._log(self._stamp({name: float(value) for name, value in own.items()}))
        permanent = epoch_done and progress.epoch in self.settings.keep_epochs
        if best or permanent or (self.plan.save_at(step) and not self.done):
            self._save(best=best, keep_as=f"epoch-{progress.epoch}.pt" if permanent else None)
        self.clock.start()

    def _evaluates_at(self, step: int) -> bool:
        """Whether an evaluation is due after ``step``, for the plan or for the algorithm."""
        return self.plan.evaluate_at(step) or (self.plan.evaluate_every is not None and self.algorithm.evaluation_due)

    def _train_step(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Take one step and add its cost to ``progress``. The first step of each kind in an epoch is counted, for all."""
        progress, costs = self.progress, self.costs
        if progress.flops is None:
            return self.algorithm.train_step(inputs, targets)
        if progress.step_in_epoch == 0:
            progress.flops_by_kind.clear()
        before = costs.flops
        metrics = costs.step(self.algorithm, inputs, targets)
        progress.flops += costs.flops - before
        return metrics

    def _check_requests(self, requests: StopRequests) -> None:
        """Decide whether to stop now; all processes of a run decide alike."""
        self.stop_signal = agreed_signal(requests.received, self.world_size)
        if self.stop_signal is not None:  # not otherwise: a signal may have arrived since
            requests.received = self.stop_signal

    def _show_progress(self) -> None:
        """Read the running means and show them: the only regular host sync. Update ``status.json`` from time to time."""
        self._guard(self.meter.flush())
        metrics = {f"train/{name}": value for name, value in self.meter.means().items()}
        metrics["time/images_per_second"] = self._images() / max(self.clock.seconds, 1e-9)
        self.tracker.progress(self.progress.epoch, self.progress.step, metrics)
        now = time.perf_counter()
        if now - self.status_written > STATUS_EVERY:
            self.status_written = now
            self.progress.seconds = now - self.started
            self.saver.status("running", self.progress)

    def _images(self) -> int:
        """The number of images trained on so far."""
        return self.plan.images(self.progress.step, self.data.train.num_samples)

    def _stamp(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """``metrics`` as a record: with the epoch and step they belong to."""
        step = self.progress.step
        return {"epoch": round(step / self.plan.steps_per_epoch, 6), "step": step, **metrics}

    def _log(self, record: Mapping[str, float]) -> None:
        self.tracker.log(record)
        self.progress.records += self.progress.step > 0

    def _record(self, own: Mapping[str, Tensor]) -> bool:
        """Evaluate and log one record. Returns whether it is the best so far."""
        progress = self.progress
        metrics: dict[str, float] = {f"train/{name}": value for name, value in self.meter.means().items()}
        self.meter.reset()
        metrics.update({name: float(value) for name, value in own.items()})
        started = time.perf_counter()
        metrics.update(self._evaluations())
        metrics["train/learning_rate"] = self.learning_rate
        metrics.update(self.algorithm.progress_metrics())
        self._stop_early(metrics)
        if self.settings.evaluate_test == "end" and self.done:
            metrics.update(self._evaluate({"test": self.data.test}))
        progress.seconds = time.perf_counter() - self.started
        metrics["time/train_seconds"] = progress.train_seconds
        metrics["time/evaluation_seconds"] = time.perf_counter() - started
        metrics["time/elapsed"] = progress.seconds
        metrics["time/images_per_second"] = self._images() / max(progress.train_seconds, 1e-9)
        if progress.flops is not None:
            metrics["cost/flops"] = float(progress.flops)
        record = self._stamp(metrics)
        self._log(record)
        log.debug("%s", ", ".join(f"{name} {value:.6g}" for name, value in record.items()))
        self.algorithm.evaluated(metrics)
        selectable = self.algorithm.selectable
        best = self.select_by is not None and selectable and is_better(record, progress.best, self.select_by)
        progress.last = record
        progress.best = record if best else progress.best
        self.saver.status("running", progress)
        return best

    def _evaluations(self) -> dict[str, float]:
        """The metrics of every split that is part of each evaluation."""
        splits: dict[str, Split | None] = {"validation": self.data.validation}
        if self.settings.evaluate_train:
            splits = {"train_plain": self.data.train_plain, **splits}
        if self.settings.evaluate_test == "always":
            splits["test"] = self.data.test
        return self._evaluate(splits)

    def _evaluate(self, splits: Mapping[str, Split | None]) -> dict[str, float]:
        """The metrics of ``splits``, named ``<split>/<metric>``."""
        share_running_statistics(self.algorithm.model, self.world_size)
        metrics: dict[str, float] = {}
        for name, split in splits.items():
            if split is not None:
                result = evaluate(self.algorithm, split, limit_batches=self.settings.limit_batches, world_size=self.world_size)
                metrics.update({f"{name}/{metric}": value for metric, value in result.items()})
        return metrics

    def _stop_early(self, record: Mapping[str, float]) -> None:
        """Apply the early-stopping rule to the metrics of the newest evaluation."""
        rule = self.settings.early_stopping
        if rule is None:
            return
        if rule.metric not in record:
            raise RunFailed(f"trainer.early_stopping.metric: {type(self.algorithm).__name__} does not record {rule.metric}")
        value = monitored_value(record, rule.metric)
        if self.progress.monitored is None or value < self.progress.monitored - rule.min_delta:
            self.progress.monitored, self.progress.stale = value, 0
        else:
            self.progress.stale += 1
            self.progress.stopped_early = self.progress.stale >= rule.patience

    def _save(self, *, best: bool = False, keep_as: str | None = None) -> None:
        self._guard(self.meter.check())
        share_running_statistics(self.algorithm.model, self.world_size)
        assert_identical(self.algorithm.model, self.world_size)
        self.progress.seconds = time.perf_counter() - self.started
        self.progress.meter = self.meter.state_dict()
        self.saver.save(self.algorithm, self.progress, best=best, keep_as=keep_as)

    def _guard(self, broken: NotFinite | None) -> None:
        """Raise RunFailed if a loss was not finite; nothing is saved after it."""
        if broken is not None:
            step = self.progress.step - broken.steps_ago
            raise RunFailed(
                f"the loss became {broken.value} at step {step} (epoch {(step - 1) // self.plan.steps_per_epoch + 1}); "
                f"{self.saver.last_good()}; try a smaller optimizer.lr or trainer.clip_norm=1.0"
            )
