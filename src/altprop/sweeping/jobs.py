"""The runs of a sweep: the configuration and directory of each, and whether it is finished."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args
from omegaconf import DictConfig, OmegaConf

from altprop.config.compose import JobComposer
from altprop.config.key import run_key
from altprop.config.plain import to_plain
from altprop.config.quoting import quoted
from altprop.files import read_json, write_json
from altprop.names import public_name
from altprop.sweeping.queue import submitted_from
from altprop.tracking.status_file import read_status

TRAINING = ("altprop.tasks.train", "altprop.tasks.rank_then_train")
"""Tasks that write the run directory of their configuration."""
MANIFEST = "runs.json"
ONLY = "ALTPROP_ONLY"
"""The environment variable with the run directories, as a JSON list, to which a command is restricted."""
EMPTY_WORDS = re.compile(r"Exited with exit code|Job step aborted|submitit INFO|Terminating StepId")
"""Lines of SLURM and submitit that say that a process has ended, but not why."""


@dataclass
class SweepRun:
    """One run of a sweep. ``arguments`` are the arguments of ``python train.py`` for this run alone."""

    overrides: list[str]
    arguments: list[str]
    directory: str | None
    """None for tasks without a run directory (``task=validate``) and for ``run=…``."""
    seed: int
    job: str | None = None
    """SLURM's job number. With ``cluster.per_gpu``, several runs have the same."""
    log: str | None = None
    """The file with its output."""
    submitting: bool = False
    """True from before its submission until its job number is known."""
    refused: str | None = None
    """Why SLURM did not take it."""
    code: int | None = None
    """The exit code of its local process; only if it failed or has no directory."""
    member: int | None = None
    """The number of its job in the array that was submitted with it."""

    @property
    def packed(self) -> bool:
        """Whether its SLURM job may have other runs as well (``cluster.per_gpu``), so that its log is not the job's."""
        return self.job is not None and self.log is not None and ".submitit" not in Path(self.log).parts

    @property
    def status(self) -> dict[str, Any]:
        """The content of its ``status.json``; empty if it never started."""
        return status_of(self.directory) if self.directory else {}

    @property
    def printed(self) -> str:
        """The content of its log; empty if there is none."""
        log = Path(self.log) if self.log is not None else None
        return log.read_text(errors="replace") if log is not None and log.exists() else ""

    @property
    def last_words(self) -> str:
        """The last line that the run itself printed, or else that SLURM printed; empty if there is none."""
        lines = [line.strip() for line in self.printed.splitlines() if line.strip()]
        own = [line for line in lines if not line.startswith(("srun: ", "slurmstepd", "submitit "))]
        others = [line for line in lines if not EMPTY_WORDS.search(line)]
        return (own or others or [""])[-1]

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], *, continue_log: bool = False
    ) -> subprocess.Popen[bytes]:
        """Start ``command`` with the run's arguments in a process whose output goes to its log.

        ``environment`` is added to that of this process.
        """
        assert self.log is not None
        command = [*command, *self.arguments]
        environment = {**os.environ, **environment}
        with Path(self.log).open("ab" if continue_log else "wb") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment)


def status_of(directory: str | Path) -> dict[str, Any]:
    """The content of ``status.json`` in a run directory; empty if there is none."""
    return read_status(Path(directory)) or {}


def sweep_runs(composer: JobComposer, job_overrides: Sequence[Sequence[str]]) -> Iterator[tuple[SweepRun, bool]]:
    """Each run once, and whether it is already finished."""
    master = composer.master
    paths = [f"paths.{name}={quoted(str(Path(master.paths[name]).absolute()))}" for name in ("data", "outputs")]
    hydra_overrides = [text for text in OmegaConf.to_container(master.hydra.overrides.hydra) if _is_search_path(str(text))]  # type: ignore[union-attr]
    config_folder = _config_folder()
    seen: set[str] = set()
    for overrides in job_overrides:
        config = composer.compose(overrides)
        directory, resume = _directory(config)
        if directory is not None:
            if directory in seen:
                continue
            seen.add(directory)
        own = [text for text in overrides if not text.startswith(("paths.data=", "paths.outputs="))]
        arguments = [*config_folder, *map(str, hydra_overrides), *own, *paths, "hydra.mode=RUN"]
        run = SweepRun(list(overrides), arguments, directory, int(config.seed))
        yield run, resume and run.status.get("status") == "done"


def unlisted(job_overrides: Sequence[Sequence[str]], runs: Sequence[SweepRun]) -> Iterator[str]:
    """A line if some of the jobs are no runs of their own."""
    if count := len(job_overrides) - len(runs):
        verb = "is the same run" if count == 1 else "are the same runs"
        yield (
            f"{count} of {len(job_overrides)} combinations {verb} as others, because they compute the same: "
            "trackers, devices and the like do not distinguish runs"
        )


def _directory(config: DictConfig) -> tuple[str | None, bool]:
    """The run directory of a job's configuration, and whether the run may be resumed."""
    if config.run is not None or public_name(str(config.task.get("_target_"))) not in TRAINING:
        return None, False
    plain, _ = to_plain(config)
    return str(Path(plain["paths"]["outputs"]).absolute() / plain["name"] / run_key(plain)), bool(plain["resume"])


def _is_search_path(text: str) -> bool:
    return text.lstrip("+~").startswith("hydra.searchpath")


def _config_folder() -> list[str]:
    folder = get_args().config_dir
    return [] if folder is None else ["--config-dir", str(Path(folder).absolute())]


@dataclass
class Manifest:
    """``runs.json`` of a sweep, which ``status.py`` and the tables read."""

    folder: Path
    group: str
    cluster: str
    runs: list[SweepRun]
    job: str | None = None
    table: str | None = None
    """SLURM's number of the job that writes the tables."""
    command: list[str] = field(default_factory=list)
    """The arguments of the command that started the sweep."""
    launcher: dict[str, Any] = field(default_factory=dict)
    """Host and process number of that command."""
    code: str | None = None
    """The folder with the code that its jobs run."""

    @classmethod
    def begin(cls, folder: Path, group: str, cluster: str, runs: list[SweepRun]) -> Manifest:
        """The manifest of a sweep that starts ``runs``, in addition to the runs of its earlier batches."""
        before = cls.read(folder) or cls(folder, group, cluster, [])
        return cls(folder, group, cluster, [*before.runs, *runs], before.job, before.table, *_this_command())

    def write(self) -> None:
        """Write the manifest into the sweep's folder."""
        own = {name: getattr(self, name) for name in ("group", "cluster", "job", "table", "command", "launcher", "code")}
        content = {**own, "runs": [asdict(run) for run in self.runs]}
        write_json(self.folder / MANIFEST, content)

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """The manifest in ``folder``, or None."""
        content = read_json(folder / MANIFEST)
        try:
            runs = [SweepRun(**run) for run in content["runs"]]
            later = (content.get("command", []), content.get("launcher", {}), content.get("code"))
            return cls(folder, content["group"], content["cluster"], runs, content["job"], content["table"], *later)
        except (KeyError, TypeError):  # missing, damaged, or not a manifest
            return None


def _this_command() -> tuple[list[str], dict[str, Any]]:
    return sys.argv[1:], {"host": socket.gethostname(), "pid": os.getpid()}


def adopt(manifest: Manifest) -> Manifest:
    """``manifest``, with the jobs of a command that was killed while it submitted: found by the folder of their batch script."""
    lost = [run for run in manifest.runs if run.submitting]
    if not lost:
        return manifest
    jobs, complaint = submitted_from(manifest.folder)
    known = {manifest.table, *(run.job for run in manifest.runs)}
    for job in sorted(set(jobs) - known):
        number = int(job.partition("_")[2] or 0)
        for run in [run for run in lost if run.member == number]:
            run.job, run.submitting = job, False
            run.log = run.log or str(manifest.folder / ".submitit" / job / f"{job}_0_log.out")
    if not complaint:
        for run in lost:
            run.submitting = False
    return manifest


def manifests(outputs: Path) -> Iterator[Manifest]:
    """The sweeps below ``paths.outputs``, newest first (their folders are named after the time)."""
    for folder in sorted((outputs / ".sweeps").glob("[!.]*"), reverse=True):
        manifest = Manifest.read(folder)
        if manifest is not None:
            yield manifest


def to_be_run(planned: Sequence[tuple[SweepRun, bool]]) -> list[SweepRun]:
    """The runs of ``planned`` that are not finished; if ``status.py action=retry`` started the command, only those it names."""
    named = os.environ.get(ONLY)
    directories = None if named is None else set(json.loads(named))
    return [run for run, finished in planned if not finished and (directories is None or run.directory in directories)]
