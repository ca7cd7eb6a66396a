"""altprop's sweeper and launchers, where Hydra looks for plugins. Hydra imports this file with every command: keep it light."""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher
from omegaconf import DictConfig


class GridSweeper(BasicSweeper):
    """Hydra's basic sweeper, with its check of every job at a tenth of the time."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        from altprop.config.sweeping.composing import composer_of

        assert self.hydra_context is not None
        assert self.config is not None
        composer = composer_of(self.hydra_context.config_loader, self.config)
        for overrides in batch:
            composer.compose(overrides)


class LocalWorkers(Launcher):
    """Runs each job of a sweep in a process of its own on this machine, as many at a time as it has GPUs or cores for."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from altprop.config.sweeping.local import launch

        return launch(self.hydra_context.config_loader, self.config, job_overrides)


class SlurmQueue(SlurmLauncher):
    """submitit's launcher with commands for jobs: returns after submitting, leaves out what is done, fixes the code."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from altprop.config.sweeping.slurm import launch

        assert self.hydra_context is not None
        assert self.config is not None
        return launch(self.hydra_context.config_loader, self.config, self.params, job_overrides)
