"""The training loop: moves batches, calls the step, evaluates, logs, saves, stops. It knows nothing of gradients or layers."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
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
"""Seconds between two updates of ``status.json`` while an epoch is under way."""


class Loop:
    """Trains ``algorithm`` on ``data`` from wherever ``progress`` stands until the plan is fulfilled or somebody asks to stop."""

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
        if progress.meter:
            self.meter.load_state_dict(progress.meter)
        if progress.step == 0 and countable(algorithm):
            progress.flops = 0
        self.costs = costs
        if progress.flops is not None:
            costs.start(progress.flops_by_kind)
        self.select_by = selection_metric(settings.select_on, data.validation is not None)
        if settings.early_stopping is not None:
            warn_of_stopping_on_test(settings.early_stopping.metric)

    def run(self, requests: StopRequests) -> None:
        """Train until done or until ``requests`` holds a signal; everything is saved on return."""
        self.started = time.perf_counter() - self.progress.seconds
        self.told = time.perf_counter()
        self._ask(requests)
        while not self.done and self.stop_signal is None:
            self._epoch(self.progress.epoch, requests)
        self._save()

    @property
    def done(self) -> bool:
        """Whether nothing is left to train."""
        return self.progress.step >= self.plan.total_steps or self.algorithm.finished or self.progress.stopped_early

    def _epoch(self, epoch: int, requests: StopRequests) -> None:
        progress = self.progress
        self.algorithm.epoch_start(epoch)
        if self.settings.evaluate_first and progress.step == 0:
            # Only now: what a run takes over from another one is there once its first epoch has begun.
            self.tracker.log(self._stamp(self._evaluations()))
        order_epoch = 0 if self.settings.overfit else epoch
        batches = islice(
            self.data.train.batches(order_epoch, progress.step_in_epoch), self.plan.steps_per_epoch - progress.step_in_epoch
        )
        clock = time.perf_counter()
        for inputs, targets in batches:
            probed = self.plan.probe_at(progress.step)
            metrics = self.probe.step(inputs, targets, self._train_step) if probed else self._train_step(inputs, targets)
            self.meter.update(metrics, targets.shape[0])
            self.profiler.step()
            progress.step += 1
            progress.step_in_epoch += 1
            if probed:
                clock += self.probe.seconds
                if self.probe.alignments:
                    self.tracker.log(self._stamp(self.probe.alignments))
            self._ask(requests)
            if progress.step % self.settings.log_every == 0:
                self._look(clock)
            epoch_done = progress.step_in_epoch == self.plan.steps_per_epoch or self.done
            evaluate_now, save_now = self.plan.evaluate_at(progress.step), self.plan.save_at(progress.step)
            if epoch_done or evaluate_now or save_now:
                self._guard(self.meter.flush())
                progress.train_seconds += time.perf_counter() - clock
                own = self.algorithm.epoch_end(epoch) if epoch_done else {}
                if epoch_done:
                    progress.epoch, progress.step_in_epoch = epoch + 1, 0
                best = False
                if evaluate_now or self.done:
                    best = self._record(own)
                elif own:
                    self.tracker.log(self._stamp({name: float(value) for name, value in own.items()}))
                kept = epoch_done and progress.epoch in self.settings.keep_epochs
                if best or kept or (save_now and not self.done):
                    self._save(best=best, keep_as=f"epoch-{progress.epoch}.pt" if kept else None)
                clock = time.perf_counter()
            if self.stop_signal is not None or self.done or epoch_done:
                break
        progress.train_seconds += time.perf_counter() - clock

    def _train_step(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """One step, its cost added to ``progress``: the first of every kind in an epoch is counted, for all of that kind."""
        progress, costs = self.progress, self.costs
        if progress.flops is None:
            return self.algorithm.train_step(inputs, targets)
        if progress.step_in_epoch == 0:
            progress.flops_by_kind.clear()
        before = costs.flops
        metrics = costs.step(self.algorithm, inputs, targets)
        progress.flops += costs.flops - before
        return metrics

    def _ask(self, requests: StopRequests) -> None:
        """Whether to stop here; all processes of a run get the same answer."""
        self.stop_signal = requests.received = agreed_signal(requests.received, self.world_size)

    def _look(self, clock: float) -> None:
        """Read the running means and show them; the only regular host sync. Now and then ``status.json`` is told, too."""
        self._guard(self.meter.flush())
        seconds = self.progress.train_seconds + time.perf_counter() - clock
        shown = {f"train/{name}": value for name, value in self.meter.means().items()}
        shown["time/images_per_second"] = self.progress.step * self.plan.batch_size / max(seconds, 1e-9)
        self.tracker.progress(self.progress.epoch, self.progress.step, shown)
        if time.perf_counter() - self.told > STATUS_EVERY:
            self.told = time.perf_counter()
            self.progress.seconds = self.told - self.started
            self.saver.status("running", self.progress)

    def _stamp(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """``metrics`` as a record: with the position they belong to."""
        step = self.progress.step
        return {"epoch": round(step / self.plan.steps_per_epoch, 6), "step": step, **metrics}

    def _record(self, own: Mapping[str, Tensor]) -> bool:
        """Evaluate, log one record, and judge it; whether it is the best so far."""
        progress = self.progress
        metrics: dict[str, float] = {f"train/{name}": value for name, value in self.meter.means().items()}
        self.meter.reset()
        metrics.update({name: float(value) for name, value in own.items()})
        started = time.perf_counter()
        metrics.update(self._evaluations())
        progress.seconds = time.perf_counter() - self.started
        metrics["train/learning_rate"] = self.algorithm.learning_rate
        metrics["time/train_seconds"] = progress.train_seconds
        metrics["time/evaluation_seconds"] = time.perf_counter() - started
        metrics["time/elapsed"] = progress.seconds
        metrics["time/images_per_second"] = progress.step * self.plan.batch_size / max(progress.train_seconds, 1e-9)
        if progress.flops is not None:
            metrics["cost/flops"] = float(progress.flops)
        record = self._stamp(metrics)
        self.tracker.log(record)
        log.debug("%s", ", ".join(f"{name} {value:.6g}" for name, value in record.items()))
        self.algorithm.evaluated(metrics)
        selectable = self.algorithm.selectable
        best = self.select_by is not None and selectable and is_better(record, progress.best, self.select_by)
        progress.last = record
        progress.best = record if best else progress.best
        self._stop_early(record)
        self.saver.status("running", progress)
        return best

    def _evaluations(self) -> dict[str, float]:
        """The metrics of every split that is to be evaluated."""
        share_running_statistics(self.algorithm.model, self.world_size)
        splits: dict[str, Split | None] = {"validation": self.data.validation, "test": self.data.test}
        if self.settings.evaluate_train:
            splits = {"train_plain": self.data.train_plain, **splits}
        metrics: dict[str, float] = {}
        for name, split in splits.items():
            if split is not None:
                result = evaluate(self.algorithm, split, limit_batches=self.settings.limit_batches, world_size=self.world_size)
                metrics.update({f"{name}/{metric}": value for metric, value in result.items()})
        return metrics

    def _stop_early(self, record: Mapping[str, float]) -> None:
        rule = self.settings.early_stopping
        if rule is None:
            return
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
        """Stop where a loss was not finite; nothing is saved after it."""
        if broken is not None:
            step = self.progress.step - broken.steps_ago
            raise RunFailed(
                f"the loss became {broken.value} at step {step} (epoch {(step - 1) // self.plan.steps_per_epoch + 1}); "
                f"{self.saver.last_good()}; try a smaller optimizer.lr or trainer.clip_norm=1.0"
            )
