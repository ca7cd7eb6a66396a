"""Trials before the runs of a sweep: each setting is tried with several values, and the best on the validation split is used."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property

from hydra.core.override_parser.overrides_parser import OverridesParser

from altprop.config.compose import JobComposer
from altprop.problems import ConfigError, Problem, RunFailed
from altprop.sweeping.grid import jobs
from altprop.sweeping.jobs import SweepRun, sweep_runs

VALIDATION = "validation/accuracy"
SEARCH = "hydra.sweeper.search"
ENDED = ("done", "failed")

Job = Sequence[str]
"""The overrides of one run."""


class Trials:
    """The trials of a sweep and the runs that follow them.

    A sweep's ``params`` describe its runs, and ``search`` what is different in the trials. The keys that only ``search`` has are
    searched: every setting of the other keys is tried with each of their values, and the value with the best mean validation
    accuracy at the end of the trials is used in the runs of that setting. A key in both, such as ``seed``, has the value in
    ``search`` in the trials and that in ``params`` in the runs. ``arguments`` are typed on the command line and apply to both.

    Raises:
        ConfigError: If nothing is searched, or the trials evaluate the test split or have no validation split.
    """

    def __init__(self, composer: JobComposer, params: Sequence[str], search: Sequence[str], arguments: Sequence[str]) -> None:
        self.composer = composer
        self._search_keys = _keys(composer, search)
        run_keys = _keys(composer, params)
        self._searched = [key for key in self._search_keys if key not in run_keys]
        shared = [text for text, key in zip(params, run_keys, strict=True) if key not in self._search_keys]
        self.jobs: list[list[str]] = jobs(composer.loader, [*shared, *search], arguments)
        typed = [text for text, key in zip(arguments, _keys(composer, arguments), strict=True) if key not in self._searched]
        self._runs: list[list[str]] = jobs(composer.loader, params, typed)
        if not self._searched:
            raise ConfigError([Problem(SEARCH, "nothing is searched", "a list of values of a key that params does not have")])
        config = composer.compose(self.jobs[0])
        if config.trainer.evaluate_test != "never":
            description = "the trials evaluate the test split, which is for the runs after them"
            raise ConfigError([Problem(SEARCH, description, "trainer.evaluate_test: never")])

    def first_choice(self) -> list[list[str]]:
        """The runs that follow if the first value of each setting is chosen, to check them before the trials."""
        first: dict[Job, list[str]] = {}
        for trial in self.jobs:
            first.setdefault(self._setting(trial), self._values(trial))
        return [[*run, *first[self._setting(run)]] for run in self._runs]

    @cached_property
    def _trials(self) -> list[SweepRun]:
        return [run for run, _ in sweep_runs(self.composer, self.jobs)]

    def unfinished(self) -> int:
        """The number of trials that are neither done nor failed."""
        return sum(run.status.get("status") not in ENDED for run in self._trials)

    def can_choose(self) -> bool:
        """Whether at least one trial of every setting is done."""
        done = {self._setting(trial.overrides) for trial in self._trials if trial.status.get("status") == "done"}
        return done == {self._setting(trial.overrides) for trial in self._trials}

    def chosen_jobs(self) -> list[list[str]]:
        """The runs, each with the values that its setting's trials have chosen. The earliest of equally good values wins.

        Values with a failed trial are not chosen. Raises RunFailed if every value of a setting has one.
        """
        accuracies: dict[Job, dict[Job, list[float]]] = defaultdict(lambda: defaultdict(list))
        for trial in self._trials:
            status = trial.status
            record, failed = status.get("last") or {}, status.get("status") == "failed"
            if not failed and VALIDATION not in record:
                raise ConfigError([Problem(SEARCH, "the trials have no validation split", "dataset.validation.size=0.1")])
            accuracy = -math.inf if failed else record[VALIDATION]
            accuracies[self._setting(trial.overrides)][tuple(self._values(trial.overrides))].append(accuracy)
        chosen = {}
        for setting, candidates in accuracies.items():
            means = {values: sum(of_seeds) / len(of_seeds) for values, of_seeds in candidates.items()}
            chosen[setting] = max(means, key=lambda values: means[values])
            tried = ", ".join(f"{' '.join(each)}: {f'{mean:.2f} %' if mean >= 0 else 'failed'}" for each, mean in means.items())
            if max(means.values()) < 0:
                raise RunFailed(f"{' '.join(setting)}: every trial failed")
            print(f"{' '.join(setting)}: {' '.join(chosen[setting])} (validation accuracy with {tried})")
        return [[*run, *chosen[self._setting(run)]] for run in self._runs]

    def _setting(self, job: Job) -> Job:
        """The overrides of ``job`` whose keys ``search`` does not have."""
        return tuple(text for text in job if _key(text) not in self._search_keys)

    def _values(self, job: Job) -> list[str]:
        """The overrides of ``job`` that are searched."""
        return [text for text in job if _key(text) in self._searched]


def _keys(composer: JobComposer, texts: Sequence[str]) -> list[str]:
    return [override.get_key_element() for override in OverridesParser.create(composer.loader).parse_overrides(list(texts))]


def _key(text: str) -> str:
    return text.partition("=")[0]
