"""A hyperparameter search: Optuna proposes values, a launcher runs them, and the run directories hold the results.

Hydra's own Optuna sweeper is not used because it needs Optuna 2 (2021) and forgets the trials that ran when it died.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.launcher import Launcher

from altprop.config.compose import JobComposer
from altprop.nn.metrics.names import higher_is_better
from altprop.problems import ConfigError, Problem, RunFailed
from altprop.program import command
from altprop.reporting.statistics import Statistic, statistic
from altprop.sweeping.checks import check_whole_number
from altprop.sweeping.grid import check as check_lists
from altprop.sweeping.grid import check_repetitions
from altprop.sweeping.jobs import SweepRun, sweep_runs
from altprop.sweeping.local import REFUSED, objective_of
from altprop.sweeping.space import SEED, Space
from altprop.sweeping.submission import SubmissionRefused

if TYPE_CHECKING:
    from optuna import Study

INSTALL = "pip install -e '.[search]'"
COMPARABLE, REST = "comparable", "a setting that is not searched"
Values = Mapping[str, Any]


@dataclass
class Search:
    """A search in the study in the sqlite ``file``: ``trials`` trials in total, ``at_once`` at the same time.

    It optimizes the metric that ``trainer.select_on`` names, at the epoch that each run selects. Lower values are better if the
    metric's name ends in ``loss`` or ``error``.
    """

    composer: JobComposer
    launcher: Launcher
    file: Path
    trials: int
    at_once: int
    objective: str = field(default="validation/accuracy", init=False)

    def run(self, arguments: Sequence[str], params: Sequence[str] = ()) -> None:
        """Start or resume the study: try values for the ranges among the overrides ``arguments`` and print the best.

        ``params`` are those of the sweeper, which ``arguments`` replace.

        Trials that were running when an earlier command died come first, and no finished trial is repeated. A run that fails is a
        failed trial. A study is removed if none of its runs has started.

        Raises:
            ConfigError: If Optuna is not installed, nothing is searched, or the study belongs to another search.
            RunFailed: If another command uses the study, or no trial was completed.
        """
        try:
            import optuna
        except ImportError:
            raise ConfigError([Problem("hydra/sweeper", "optuna is not installed", "a search needs it", INSTALL)]) from None
        for key, number in (("trials", self.trials), ("max_batch_size", self.at_once)):
            if problems := list(check_whole_number(f"hydra.sweeper.{key}", number, 1)):
                raise ConfigError(problems)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        parser = OverridesParser.create(self.composer.loader)
        typed = parser.parse_overrides(list(arguments))
        space = Space.of(typed, parser.parse_overrides(list(params)))
        check_repetitions(typed)
        check_lists(typed, self.composer.loader)
        comparable = self._check(space)
        with self._alone():
            study = optuna.create_study(
                storage=f"sqlite:///{self.file}",
                study_name=self.file.stem,
                direction="maximize" if higher_is_better(self.objective) else "minimize",
                load_if_exists=True,
            )
            self._check_the_same(study, comparable)
            known = study.get_trials(deepcopy=False)
            ended = sum(trial.state.is_finished() for trial in known)
            print(f"{self.file}: {ended} of {self.trials} trials have ended, {len(known) - ended} are running")
            while batch := self._next_batch(study, space):
                self._run_batch(study, space, batch)
            self._print_best(study, space)

    def _check(self, space: Space) -> dict[str, str]:
        """Compose the ends of the ranges as a check. Returns what trials must have in common to be comparable."""
        from optuna.distributions import distribution_to_json

        samples = list(space.samples())
        for values in reversed(samples):
            config = self.composer.compose(space.repetitions(values)[0])
        chosen_by = config.trainer.select_on
        if chosen_by.partition("/")[0] not in ("validation", "test"):
            fix = "trainer.select_on=validation dataset.validation.size=500"
            allowed = "validation (or test) in a search, or a metric such as validation/loss"
            raise ConfigError([Problem("trainer.select_on", chosen_by, allowed, fix)])
        self.objective = chosen_by if "/" in chosen_by else f"{chosen_by}/accuracy"
        directory = self._runs_of(space, samples[0])[0].directory
        if directory is None:
            raise ConfigError([Problem("task", "it has no run directory", "a search needs runs that train", "task=train")])
        searched = {key: distribution_to_json(distribution) for key, distribution in space.searched.items()}
        seeds = {SEED: ",".join(space.seeds)} if space.seeds else {}
        of_own = {} if self.objective.endswith("/accuracy") else {"trainer.select_on": self.objective}
        return {**searched, **seeds, **of_own, REST: "/".join(Path(directory).parts[-2:])}

    def _check_the_same(self, study: Study, comparable: dict[str, str]) -> None:
        before = study.user_attrs.get(COMPARABLE, comparable)
        if before != comparable:
            keys = [key for key in {**before, **comparable} if before.get(key) != comparable.get(key)]
            other = ", ".join(key for key in keys if key != REST) or REST
            description = f"{other} was different in {self.file}"
            raise ConfigError([Problem("hydra.sweeper.params", description, "one study for each search", "group=<another name>")])
        study.set_user_attr(COMPARABLE, comparable)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Lock the study, because two commands would both resume the trials that are running."""
        lock = FileLock(f"{self.file}.lock", timeout=0)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise RunFailed(f"another command is using {self.file}") from None
        try:
            yield
        finally:
            lock.release()
            if not self.file.exists():  # the search was refused
                Path(lock.lock_file).unlink(missing_ok=True)
                with suppress(OSError):  # it is not empty
                    for folder in self.file.parents[:2]:  # .studies, paths.outputs
                        folder.rmdir()

    def _next_batch(self, study: Study, space: Space) -> dict[int, Values]:
        """The values of the next trials, by number: first of interrupted trials, then of new ones."""
        from optuna.samplers import TPESampler
        from optuna.trial import TrialState

        batch: dict[int, Values] = {}
        known = study.get_trials(deepcopy=False)
        for trial in known:
            if trial.state == TrialState.RUNNING and trial.params.keys() != space.searched.keys():
                study.tell(trial.number, state=TrialState.FAIL)  # the command died before it had all values
            elif trial.state == TrialState.RUNNING and len(batch) < self.at_once:
                batch[trial.number] = trial.params
        study.sampler = TPESampler(seed=len(known))  # the same seed would propose the same values after each restart
        for _ in range(min(self.at_once - len(batch), self.trials - len(known))):
            new = study.ask(space.searched)
            batch[new.number] = new.params
        return batch

    def _run_batch(self, study: Study, space: Space, batch: Mapping[int, Values]) -> None:
        from optuna.trial import TrialState

        trials = {number: self._runs_of(space, values) for number, values in batch.items()}
        runs = [run for trial in trials.values() for run in trial]
        failure: ConfigError | RunFailed | None = None
        try:
            self.launcher.launch([run.overrides for run in runs], initial_job_idx=min(trials))
        except (ConfigError, RunFailed) as error:
            failure = error
        if not any(run.status for run in runs) and not any(trial.state.is_finished() for trial in study.trials):
            self.file.unlink()
            raise failure or RunFailed("no run has started", REFUSED)
        if isinstance(failure, (ConfigError, SubmissionRefused)):
            raise failure
        if failure is not None:
            print(failure, file=sys.stderr)
        for number, trial in trials.items():
            result = self._result_of(trial)
            study.tell(number, result.mean if result else None, None if result else TrialState.FAIL)
            words = " ".join(f"{key}={value}" for key, value in batch[number].items())
            print(f"trial {number}: {self._in_words(result) if result else 'failed'} with {words}")

    def _runs_of(self, space: Space, values: Values) -> list[SweepRun]:
        """The runs of the trial with ``values``: one for each seed."""
        return [run for run, _ in sweep_runs(self.composer, space.repetitions(values))]

    def _print_best(self, study: Study, space: Space) -> None:
        done = [trial for trial in study.trials if trial.value is not None]
        if not done:
            raise RunFailed(f"no trial of {self.file} was completed; {command('status')} shows why")
        best = study.best_trial
        runs = self._runs_of(space, best.params)
        result = self._result_of(runs)
        best_run = f"{command('train')} {shlex.join(runs[0].arguments)}"
        value = self._in_words(result or Statistic(1, study.best_value))
        print(f"best of {len(done)}: trial {best.number}, {value}: {best_run}")

    def _result_of(self, runs: Sequence[SweepRun]) -> Statistic | None:
        """The value of a trial over its seeds; None if a run of it is not done or has no such metric."""
        values = [objective_of(run.status, self.objective) if run.status.get("status") == "done" else None for run in runs]
        known = [value for value in values if value is not None]
        return statistic(known, (0.0, 100.0) if self._is_percent else (-inf, inf)) if len(known) == len(values) else None

    @property
    def _is_percent(self) -> bool:
        return self.objective.endswith("/accuracy")

    def _in_words(self, result: Statistic) -> str:
        """``95.20 %``, or with several seeds their mean and its interval; of other metrics their name and value."""
        form, unit = ("{:.2f}", " %") if self._is_percent else ("{:.4f}", "")
        named = "" if self._is_percent else f"{self.objective} "
        value = f"{named}{form.format(result.mean)}{unit}"
        if result.low is None or result.high is None:
            return value
        interval = f"95 % interval {form.format(result.low)} to {form.format(result.high)}"
        return f"mean of {result.count} seeds {value} ({interval})"
