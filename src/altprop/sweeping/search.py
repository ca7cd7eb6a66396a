"""A hyper-parameter search: Optuna proposes values, a launcher runs them, the run directories say what came out.

Hydra's own sweeper for Optuna is not used: it needs an Optuna of 2021, and forgets trials that were under way when it died.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.launcher import Launcher

from altprop.config.compose import JobComposer
from altprop.problems import ConfigError, Problem, RunFailed
from altprop.sweeping.jobs import SweepRun, sweep_runs
from altprop.sweeping.local import REFUSED, objective_of
from altprop.sweeping.slurm import SubmissionRefused
from altprop.sweeping.space import Space

if TYPE_CHECKING:
    from optuna import Study

INSTALL = "pip install -e '.[search]'"
COMPARABLE, REST = "comparable", "a setting that is not searched"
Values = Mapping[str, Any]


@dataclass
class Search:
    """A search in the study that lies in the sqlite ``file``: ``trials`` trials in all, ``at_once`` of them at the same time."""

    composer: JobComposer
    launcher: Launcher
    file: Path
    trials: int
    at_once: int

    def run(self, arguments: Sequence[str]) -> None:
        """Begin the study or go on with it: try values for the ranges among the overrides ``arguments``, and say which are best.

        What was under way when an earlier command died goes first, and no finished trial is repeated. A run that fails is a
        failed trial.

        Raises ConfigError where Optuna is not installed, nothing is searched, or the study is of something else; RunFailed where
        another command is at work on it or no trial came to an end. A study of which no run has begun is removed.
        """
        try:
            import optuna
        except ImportError:
            raise ConfigError([Problem("hydra/sweeper", "optuna is not installed", "a search needs it", INSTALL)]) from None
        for key, number in (("trials", self.trials), ("max_batch_size", self.at_once)):
            if not isinstance(number, int) or number < 1:
                raise ConfigError([Problem(f"hydra.sweeper.{key}", str(number), "a whole number from 1 on")])
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        space = Space.of(OverridesParser.create(self.composer.loader).parse_overrides(list(arguments)))
        comparable = self._check(space)
        with self._alone():
            study = optuna.create_study(
                storage=f"sqlite:///{self.file}", study_name=self.file.stem, direction="maximize", load_if_exists=True
            )
            self._check_the_same(study, comparable)
            known = study.get_trials(deepcopy=False)
            ended = sum(trial.state.is_finished() for trial in known)
            print(f"{self.file}: {ended} of {self.trials} trials have ended, {len(known) - ended} are under way")
            while batch := self._next_batch(study, space):
                self._run_batch(study, space, batch)
            self._print_best(study, space)

    def _check(self, space: Space) -> dict[str, str]:
        """Compose what can be composed, and return what trials must have in common to be compared."""
        from optuna.distributions import distribution_to_json

        samples = list(space.samples())
        for values in reversed(samples):
            config = self.composer.compose(space.overrides(values))
        chosen_by = config.trainer.select_on
        if chosen_by not in ("validation", "test"):
            fix = "trainer.select_on=validation dataset.validation.size=500"
            raise ConfigError([Problem("trainer.select_on", chosen_by, "validation (or test) where a search chooses", fix)])
        directory = self._run_of(space, samples[0]).directory
        if directory is None:
            raise ConfigError([Problem("task", "it leaves no run", "a search needs runs that train", "task=train")])
        searched = {key: distribution_to_json(distribution) for key, distribution in space.searched.items()}
        return {**searched, REST: "/".join(Path(directory).parts[-2:])}

    def _check_the_same(self, study: Study, comparable: dict[str, str]) -> None:
        before = study.user_attrs.get(COMPARABLE, comparable)
        if before != comparable:
            keys = [key for key in {**before, **comparable} if before.get(key) != comparable.get(key)]
            other = ", ".join(key for key in keys if key != REST) or REST
            given = f"{other} was something else in {self.file}"
            raise ConfigError([Problem("hydra.sweeper.params", given, "one study for each search", "group=<another name>")])
        study.set_user_attr(COMPARABLE, comparable)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two commands on one study would both go on with what is under way."""
        lock = FileLock(f"{self.file}.lock", timeout=0)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise RunFailed(f"another command is at work on {self.file}") from None
        try:
            yield
        finally:
            lock.release()
            if not self.file.exists():  # refused, so nothing is left behind
                Path(lock.lock_file).unlink(missing_ok=True)
                with suppress(OSError):  # something else lies there
                    for folder in self.file.parents[:2]:  # .studies, paths.outputs
                        folder.rmdir()

    def _next_batch(self, study: Study, space: Space) -> dict[int, Values]:
        """The values of the trials to be run now, by number: of those that are under way, then of new ones."""
        from optuna.samplers import TPESampler
        from optuna.trial import TrialState

        batch: dict[int, Values] = {}
        known = study.get_trials(deepcopy=False)
        for trial in known:
            if trial.state == TrialState.RUNNING and trial.params.keys() != space.searched.keys():
                study.tell(trial.number, state=TrialState.FAIL)  # the command died while it asked for the values
            elif trial.state == TrialState.RUNNING and len(batch) < self.at_once:
                batch[trial.number] = trial.params
        study.sampler = TPESampler(seed=len(known))  # with the same seed it would propose the same again after each restart
        for _ in range(min(self.at_once - len(batch), self.trials - len(known))):
            new = study.ask(space.searched)
            batch[new.number] = new.params
        return batch

    def _run_batch(self, study: Study, space: Space, batch: Mapping[int, Values]) -> None:
        from optuna.trial import TrialState

        runs = {number: self._run_of(space, values) for number, values in batch.items()}
        failure: ConfigError | RunFailed | None = None
        try:
            self.launcher.launch([run.overrides for run in runs.values()], initial_job_idx=min(runs))
        except (ConfigError, RunFailed) as error:
            failure = error
        if not any(run.status for run in runs.values()) and not any(trial.state.is_finished() for trial in study.trials):
            self.file.unlink()
            raise failure or RunFailed("no run has begun", REFUSED)
        if isinstance(failure, (ConfigError, SubmissionRefused)):
            raise failure
        if failure is not None:
            print(failure, file=sys.stderr)
        for number, run in runs.items():
            value = objective_of(run.status) if run.status.get("status") == "done" else None
            study.tell(number, value, TrialState.FAIL if value is None else None)
            words = " ".join(f"{key}={value}" for key, value in batch[number].items())
            print(f"trial {number}: {'failed' if value is None else f'{value:.2f} %'} with {words}")

    def _run_of(self, space: Space, values: Values) -> SweepRun:
        return next(sweep_runs(self.composer, [space.overrides(values)]))[0]

    def _print_best(self, study: Study, space: Space) -> None:
        done = [trial for trial in study.trials if trial.value is not None]
        if not done:
            raise RunFailed(f"no trial of {self.file} came to its end; python status.py tells why")
        best = study.best_trial
        command = shlex.join(["python", "train.py", *self._run_of(space, best.params).arguments])
        print(f"best of {len(done)}: trial {best.number}, {best.value:.2f} %: {command}")
