"""altprop's sweepers, launchers and search path as Hydra plugins.

Hydra imports this file with every command, so it must stay light.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher
from omegaconf import DictConfig

from altprop.problems import ConfigError, Problem, RunFailed
from altprop.ranges import PositiveInt


@contextmanager
def disk_errors_explained() -> Iterator[None]:
    """Raise :class:`RunFailed` if the disk is full, read-only or not the user's."""
    try:
        yield
    except OSError as error:
        codes = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
        if error.errno not in codes or error.filename is None:  # without a name it is standard output
            raise
        advice = "the same command submits or starts what is not in the queue yet"
        raise RunFailed(f"the sweep cannot be written down ({error.strerror}: {error.filename}); {advice}") from error


class OwnPackages(SearchPathPlugin):
    """Adds the configuration folders of installed packages to the search path of every program that composes altprop's.

    It also registers altprop's schema and resolvers, so that Hydra's ``initialize_config_module("altprop.conf")`` works.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        places = {entry.path.removeprefix("file://") for entry in search_path.get_path()}
        if "altprop" not in sys.modules and not any(place.startswith("pkg://altprop") for place in places):
            return  # another program that uses Hydra
        import altprop.config  # noqa: F401 - registers the schema and the resolvers
        from altprop.config.project import CONF, CONFIG_MODULE, own_packages

        if places & {str(CONF), f"pkg://{CONFIG_MODULE}"}:
            for package in own_packages():
                search_path.append(package.name, f"file://{package.folder}")


@contextmanager
def workers_end(launcher: Launcher | None) -> Iterator[None]:
    """End the processes that ``launcher`` keeps between batches."""
    try:
        yield
    finally:
        if isinstance(launcher, LocalWorkers):
            launcher.servers.close()


class AltpropSweeper(BasicSweeper):
    """What the sweepers share: ``params`` are read as if they were typed on the command line, before its own overrides."""

    def __init__(self, max_batch_size: PositiveInt | None, params: dict[str, str] | None = None) -> None:
        super().__init__(max_batch_size, params)

    def _parse_config(self) -> list[str]:
        return _texts(self.params)

    def _check_folders(self) -> None:
        """Raise ConfigError if a folder of the sweep would be called ``~``."""
        from altprop.config.checks.unused import home_folders

        assert self.config is not None
        if problems := home_folders({"paths": dict(self.config.paths)}):
            raise ConfigError(problems)


class GridSweeper(AltpropSweeper):
    """Hydra's basic sweeper with ten times faster checks of the jobs. If a batch fails, the next ones still run.

    Args:
        max_batch_size: Number of jobs that are launched together; None launches all.
        params: The overrides of the jobs, with lists of values.
        search: Overrides of trials that come first, with lists of values: keys that are not in ``params`` are searched
            (:mod:`altprop.sweeping.trials`). None starts the jobs of ``params`` at once.
    """

    def __init__(self, max_batch_size: PositiveInt | None, params: Any = None, search: Any = None) -> None:
        super().__init__(max_batch_size, params)
        self.search = search

    def sweep(self, arguments: list[str]) -> Any:
        assert self.launcher is not None
        self._check_folders()
        size: Any = self.max_batch_size
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            allowed = "a whole number of at least 1, or null for one batch"
            raise ConfigError([Problem("hydra.sweeper.max_batch_size", str(size), allowed, "hydra.sweeper.max_batch_size=null")])
        if self.search:
            return self._sweep_with_trials(arguments)
        self._plan = self._jobs(arguments)  # refuses mistakes before anything is written
        return self._launch(arguments)

    def _sweep_with_trials(self, arguments: list[str]) -> Any:
        """Launch the trials and then, when all of them have ended, the jobs with the values that the validation split chose.

        A value whose trial fails is not chosen.
        """
        from altprop.config.compose import composer_of
        from altprop.sweeping.trials import Trials

        assert self.hydra_context is not None
        assert self.config is not None
        composer = composer_of(self.hydra_context.config_loader, self.config)
        trials = Trials(composer, self._parse_config(), _texts(self.search), arguments)
        self._plan = trials.jobs
        self.validate_batch_is_legal(trials.first_choice())
        try:
            self._launch(arguments)
        except RunFailed as failure:
            if failure.exit_code == 2 or not trials.can_choose():  # refused
                raise
            print(failure, file=sys.stderr)
        if waiting := trials.unfinished():
            print(
                f"{waiting} of {len(trials.jobs)} trials have not ended; once they have, the same command starts the other runs"
            )
            return []
        self._plan = trials.chosen_jobs()
        return self._launch(arguments)

    def _launch(self, arguments: list[str]) -> Any:
        assert self.launcher is not None
        self.batch_index = 0
        failures: list[RunFailed] = []
        launch = self.launcher.launch

        def launch_batch(job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            try:
                return launch(job_overrides, initial_job_idx)
            except RunFailed as failure:
                failures.append(failure)
                return []

        self.launcher.launch = launch_batch  # type: ignore[method-assign]
        try:
            with disk_errors_explained(), workers_end(self.launcher):
                returns = super().sweep(arguments)
        finally:
            self.launcher.launch = launch  # type: ignore[method-assign]
        if failures:
            raise RunFailed("\n".join(map(str, failures)), max(failures, key=lambda one: one.exit_code != 2).exit_code)
        return returns

    def split_arguments(self, overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:  # type: ignore[override]
        """The jobs in batches. Hydra's own method drops overrides: it keeps one per key, as if a mapping replaced a choice."""
        return list(self.split_overrides_to_chunks(self._plan, max_batch_size))  # type: ignore[arg-type]

    def _jobs(self, arguments: list[str]) -> list[list[str]]:
        from altprop.sweeping.grid import jobs

        assert self.hydra_context is not None
        return jobs(self.hydra_context.config_loader, self._parse_config(), arguments)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        from altprop.config.compose import composer_of

        assert self.hydra_context is not None
        assert self.config is not None
        composer = composer_of(self.hydra_context.config_loader, self.config)
        for overrides in batch:
            composer.compose(overrides)


def _texts(params: Any) -> list[str]:
    """``params``, a mapping or None, as overrides."""
    from altprop.sweeping.grid import written

    return [f"{key}={written(value)}" for key, value in (params or {}).items()]


class OptunaSearch(AltpropSweeper):
    """A hyperparameter search in a study of its own: ``trials`` in total, ``max_batch_size`` at the same time.

    ``search`` is a key of the grid's sweeper, which sweeps that choose this one inherit; only None is valid.
    """

    def __init__(
        self, trials: PositiveInt, max_batch_size: PositiveInt, params: dict[str, str] | None = None, search: Any = None
    ) -> None:
        super().__init__(max_batch_size, params)
        self.trials = trials
        self.search = search

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        config.cluster.wait = True  # the search needs the results
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> None:
        from altprop.config.compose import composer_of
        from altprop.sweeping.search import Search

        assert self.hydra_context is not None
        assert self.config is not None
        assert self.launcher is not None
        self._check_folders()
        if self.search:
            description = "is set, but Optuna searches what is in params"
            raise ConfigError([Problem("hydra.sweeper.search", description, "null", "hydra.sweeper.search=null")])
        name = (self.config.group or self.config.name).replace("/", "-")
        file = Path(self.config.paths.outputs).absolute() / ".studies" / f"{name}.db"
        composer = composer_of(self.hydra_context.config_loader, self.config)
        search = Search(
            composer, self.launcher, file, self.trials, self.trials if self.max_batch_size is None else self.max_batch_size
        )
        with disk_errors_explained(), workers_end(self.launcher):
            search.run(arguments, self._parse_config())


class LocalWorkers(Launcher):
    """Runs each job of a sweep in a process of its own on this machine, as many at a time as there are GPUs or cores."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from altprop.sweeping.warm import Servers

        self.hydra_context, self.config = hydra_context, config
        self.servers = Servers()  # they stay between the batches of a sweep

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from altprop.sweeping.local import launch

        return launch(self.hydra_context.config_loader, self.config, job_overrides, self.servers)


class SlurmQueue(SlurmLauncher):
    """submitit's launcher, but it returns after submitting, skips finished runs, and runs a snapshot of the code."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from altprop.sweeping.checks import problems_of_cluster

        if problems := list(problems_of_cluster(config)):
            raise ConfigError(problems)
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from altprop.sweeping.slurm import launch

        assert self.hydra_context is not None
        assert self.config is not None
        return launch(self.hydra_context.config_loader, self.config, self.params, job_overrides)
