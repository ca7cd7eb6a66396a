"""The runs of a sweep: what each computes, where it lies, and whether anything is left to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args
from omegaconf import DictConfig, OmegaConf

from altprop.config.compose import JobComposer
from altprop.config.key import run_key
from altprop.config.plain import to_plain
from altprop.files import read_json, write_json
from altprop.names import public_name

TRAINING = ("altprop.tasks.train", "altprop.tasks.rank_then_train")
"""Tasks that leave a run directory of the configuration's own name and key."""
MANIFEST = "runs.json"


@dataclass
class SweepRun:
    """One run of a sweep. ``arguments`` are those of ``python train.py`` that do it and nothing else."""

    overrides: list[str]
    arguments: list[str]
    directory: str | None
    """None where what is to be done leaves no run directory (``task=validate``, ``run=…``)."""
    seed: int
    job: str | None = None
    """SLURM's number of it."""
    log: str | None = None
    """What it printed."""

    @property
    def status(self) -> dict[str, Any]:
        """Its ``status.json``; empty where it never started."""
        return status_of(self.directory) if self.directory else {}

    @property
    def printed(self) -> str:
        """Its log; empty where there is none."""
        log = Path(self.log) if self.log is not None else None
        return log.read_text(errors="replace") if log is not None and log.exists() else ""

    @property
    def last_words(self) -> str:
        """The last line that it printed itself; empty where there is none."""
        lines = [line.strip() for line in self.printed.splitlines()]
        own = [line for line in lines if line and not line.startswith(("srun: ", "slurmstepd", "submitit "))]
        return own[-1] if own else ""


def status_of(directory: str | Path) -> dict[str, Any]:
    """``status.json`` of a run directory; empty where there is none."""
    content = read_json(Path(directory) / "status.json")
    return content if isinstance(content, dict) else {}


def sweep_runs(composer: JobComposer, job_overrides: Sequence[Sequence[str]]) -> Iterator[tuple[SweepRun, bool]]:
    """Every run once, and whether it is finished already."""
    master = composer.master
    paths = [f"paths.{name}={Path(master.paths[name]).absolute()}" for name in ("data", "outputs")]
    hydra_overrides = [text for text in OmegaConf.to_container(master.hydra.overrides.hydra) if _is_kept(str(text))]  # type: ignore[union-attr]
    config_folder = _config_folder()
    seen: set[str] = set()
    for overrides in job_overrides:
        config = composer.compose(overrides)
        directory, resume = _directory(config)
        if directory is not None:
            if directory in seen:
                continue
            seen.add(directory)
        given = [text for text in overrides if not text.startswith(("paths.data=", "paths.outputs="))]
        arguments = [*config_folder, *map(str, hydra_overrides), *given, *paths, "hydra.mode=RUN"]
        run = SweepRun(list(overrides), arguments, directory, int(config.seed))
        yield run, resume and run.status.get("status") == "done"


def _directory(config: DictConfig) -> tuple[str | None, bool]:
    """Where the run of a job's configuration lies, and whether it may be resumed."""
    if config.run is not None or public_name(str(config.task.get("_target_"))) not in TRAINING:
        return None, False
    plain, _ = to_plain(config)
    return str(Path(plain["paths"]["outputs"]).absolute() / plain["name"] / run_key(plain)), bool(plain["resume"])


def _is_kept(text: str) -> bool:
    return text.lstrip("+~").startswith("hydra.searchpath")


def _config_folder() -> list[str]:
    folder = get_args().config_dir
    return [] if folder is None else ["--config-dir", str(Path(folder).absolute())]


@dataclass
class Manifest:
    """``runs.json`` of a sweep: what ``status.py`` and the tables read."""

    folder: Path
    group: str
    cluster: str
    runs: list[SweepRun]
    job: str | None = None
    table: str | None = None
    """SLURM's number of the job that writes the tables."""

    @classmethod
    def begin(cls, folder: Path, group: str, cluster: str, runs: list[SweepRun]) -> Manifest:
        """The manifest of a sweep that starts ``runs``, and of what it started before where it goes in several batches."""
        before = cls.read(folder) or cls(folder, group, cluster, [])
        return cls(folder, group, cluster, [*before.runs, *runs], before.job, before.table)

    def write(self) -> None:
        """Write it into the sweep's folder."""
        numbers = {"job": self.job, "table": self.table}
        content = {"group": self.group, "cluster": self.cluster, **numbers, "runs": [asdict(run) for run in self.runs]}
        write_json(self.folder / MANIFEST, content)

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """The manifest in ``folder``, or None where there is none."""
        content = read_json(folder / MANIFEST)
        if content is None:
            return None
        runs = [SweepRun(**run) for run in content["runs"]]
        return cls(folder, content["group"], content["cluster"], runs, content["job"], content["table"])


def manifests(outputs: Path) -> Iterator[Manifest]:
    """The sweeps below ``paths.outputs``, the newest first (their folders are named after the time)."""
    for folder in sorted((outputs / ".sweeps").glob("*"), reverse=True):
        manifest = Manifest.read(folder)
        if manifest is not None:
            yield manifest
