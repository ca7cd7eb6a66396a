"""Trials before the runs of a sweep: each setting is tried with several values, and the validation split chooses among them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser

from altprop.config.compose import JobComposer
from altprop.problems import ConfigError, Problem, RunFailed
from altprop.sweeping.grid import jobs
from altprop.sweeping.jobs import sweep_runs

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
        self._names = _keys(composer, search)
        own = _keys(composer, params)
        self._searched = [key for key in self._names if key not in own]
        kept = [text for text, key in zip(params, own, strict=True) if key not in self._names]
        self.jobs: list[list[str]] = jobs(composer.loader, [*kept, *search], arguments)
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

    def unfinished(self) -> int:
        """The number of trials that have not ended: they are neither done nor failed."""
        return sum(run.status.get("status") not in ENDED for run, _ in sweep_runs(self.composer, self.jobs))

    def can_choose(self) -> bool:
        """Whether at least one trial of every setting is done."""
        runs = [run for run, _ in sweep_runs(self.composer, self.jobs)]
        done = {self._setting(run.overrides) for run in runs if run.status.get("status") == "done"}
        return done == {self._setting(run.overrides) for run in runs}

    def chosen_jobs(self) -> list[list[str]]:
        """The runs, each with the values that its setting's trials have chosen. The earliest of equally good values wins.

        Values with a failed trial are not chosen. Raises RunFailed if every value of a setting has one.
        """
        accuracies: dict[Job, dict[Job, list[float]]] = defaultdict(lambda: defaultdict(list))
        for run, _ in sweep_runs(self.composer, self.jobs):
            record = run.status.get("last") or {}
            failed = run.status.get("status") == "failed"
            if not failed and VALIDATION not in record:
                raise ConfigError([Problem(SEARCH, "the trials have no validation split", "dataset.validation.size=0.1")])
            accuracy = -math.inf if failed else record[VALIDATION]
            accuracies[self._setting(run.overrides)][tuple(self._values(run.overrides))].append(accuracy)
        chosen = {}
        for setting, candidates in accuracies.items():
            means = {values: sum(found) / len(found) for values, found in candidates.items()}
            chosen[setting] = max(means, key=lambda values: means[values])
            tried = ", ".join(f"{' '.join(each)}: {f'{mean:.2f} %' if mean >= 0 else 'failed'}" for each, mean in means.items())
            if max(means.values()) < 0:
                raise RunFailed(f"{' '.join(setting)}: every trial failed")
            print(f"{' '.join(setting)}: {' '.join(chosen[setting])} (validation accuracy with {tried})")
        return [[*run, *chosen[self._setting(run)]] for run in self._runs]

    def _setting(self, job: Job) -> Job:
        """The overrides of ``job`` whose keys ``search`` does not have."""
        return tuple(text for text in job if _key(text) not in self._names)

    def _values(self, job: Job) -> list[str]:
        """The overrides of ``job`` that are searched."""
        return [text for text in job if _key(text) in self._searched]


def _keys(composer: JobComposer, texts: Sequence[str]) -> list[str]:
    return [override.get_key_element() for override in OverridesParser.create(composer.loader).parse_overrides(list(texts))]


def _key(text: str) -> str:
    return text.partition("=")[0]
