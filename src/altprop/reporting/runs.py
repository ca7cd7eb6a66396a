"""The runs below a folder, read from the files in their directories without importing torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from altprop.files import read_json
from altprop.names import with_public_names
from altprop.tracking.metrics_file import JSON_NAME, read_metrics
from altprop.tracking.parent_file import started_from
from altprop.tracking.status_file import read_status
from altprop.yaml_files import one_line, read_yaml

RUN_FILES = ("config.yaml", "status.json")
IRRELEVANT_KEYS = (
    *("experiment", "sweep", "seed", "name", "group", "tags", "paths", "logger"),
    *("cluster", "resources", "hydra", "resume", "run", "trust_run", "task"),
    *("trainer.device", "trainer.threads", "trainer.figures", "trainer.log_every", "trainer.checkpoint_every"),
    *("trainer.keep", "trainer.keep_epochs", "trainer.save_initial", "trainer.evaluate_first"),
    *("trainer.probe_every", "trainer.profile_steps"),
    *("dataset.workers", "dataset.prefetch"),
)
"""Command-line keys that do not change what is computed: they say which run it is, where it runs and what it writes."""


@dataclass(frozen=True)
class Run:
    """The contents of one run directory."""

    path: Path
    name: str
    key: str
    seed: int
    config: Mapping[str, Any]
    status: str
    """done, running, failed, preempted or interrupted; ``not started`` without a ``status.json``."""
    error: str
    """Why the run failed; empty if it did not."""
    epoch: float
    """Number of finished epochs."""
    total_epochs: float | None
    records: Sequence[Mapping[str, Any]]
    selected: Mapping[str, Any]
    """The record of the selected epoch; empty if none was selected."""
    parameters: int | None
    flops: float | None
    """Floating-point operations of all training steps."""
    peak_memory: Mapping[str, Any]
    """The peak in ``bytes`` and what it is the peak ``of``; empty if it was not recorded."""
    changed: Sequence[str]
    """Command-line overrides that change what is computed, except for the seed."""
    hardware: str
    commit: str
    code: str
    """Which code made the run, by package and content; all of it if several sessions differ. Empty if not recorded."""
    threads: str
    """Numbers of threads of its sessions on a CPU; empty on other devices or if not recorded."""
    updated: str
    stopped_early: str = ""
    """When and why early stopping ended the run; empty if it did not."""
    started_from: str = ""
    """The runs and files whose weights or masks the run started from; empty if there are none."""

    @property
    def done(self) -> bool:
        """Whether the run was trained to its end."""
        return self.status == "done"


@dataclass(frozen=True)
class Unreadable:
    """A directory that looks like a run but cannot be read as one."""

    path: Path
    reason: str


def run_directories(outputs: Path) -> Iterator[Path]:
    """The run directories below ``outputs``, in sorted order.

    Links (``latest``) and hidden folders are not followed.
    """
    for folder, subfolders, files in os.walk(outputs):
        if any(name in files for name in RUN_FILES):
            subfolders.clear()
            yield Path(folder)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))


def read_runs(outputs: Path) -> tuple[list[Run], list[Unreadable]]:
    """All runs below ``outputs``, and the directories that could not be read.

    If there are several copies of a run, only the one updated last counts.
    """
    newest: dict[tuple[str, str], Run] = {}
    unreadable: list[Unreadable] = []
    for path in run_directories(outputs):
        try:
            run = read_run(path)
        except Exception as error:  # a damaged run can break its reader in any way, and must not hide the others
            unreadable.append(Unreadable(path, one_line(error)))
            continue
        other = newest.get((run.name, run.key))
        if other is not None:
            run, older = (run, other) if run.updated > other.updated else (other, run)
            unreadable.append(Unreadable(older.path, f"skipped: an older copy of the run in {run.path}"))
        newest[run.name, run.key] = run
    return list(newest.values()), unreadable


def read_run(path: Path) -> Run:
    """The run in ``path``. Raises ``ValueError``, ``OSError`` or ``yaml.YAMLError`` if its files are not those of a run."""
    if not (path / "config.yaml").exists():
        raise ValueError("config.yaml is missing")
    config = read_yaml(path / "config.yaml")
    if not isinstance(config, dict) or not isinstance(config.get("name"), str) or not isinstance(config.get("seed"), int):
        raise ValueError("config.yaml is not a run's configuration: it has no name or no seed")
    status, meta = read_status(path) or {}, _object(path / "meta.json")
    config = with_public_names(config)
    records = read_metrics(path / JSON_NAME)
    if any("epoch" not in record or "step" not in record for record in records):
        raise ValueError(f"{path / JSON_NAME} has records without an epoch or a step")
    return Run(
        path=path,
        name=config["name"],
        key=str(status.get("key", path.name)),
        seed=config["seed"],
        config=config,
        status=status.get("status", "not started"),
        error=status.get("error", ""),
        epoch=float(status.get("epoch", 0.0)),
        total_epochs=status.get("total_epochs"),
        records=records,
        selected=status.get("best", {}),
        parameters=status.get("parameters"),
        flops=status.get("flops"),
        peak_memory=status.get("peak_memory", {}),
        changed=changed_overrides(meta.get("command") or []),
        hardware=_hardware(meta),
        commit=_commit(meta),
        code=_code(meta),
        threads=_threads(meta),
        updated=status.get("updated_at", ""),
        stopped_early=str(status.get("stopped_early") or ""),
        started_from=started_from(path),
    )


def changed_overrides(command: Sequence[str]) -> list[str]:
    """The overrides in ``command`` (script name first) that are not at or below one of :data:`IRRELEVANT_KEYS`."""
    overrides = [word for word in command[1:] if "=" in word and not word.startswith("-")]
    keys = [word.partition("=")[0].lstrip("+~").replace("/", ".") for word in overrides]
    return [word for word, key in zip(overrides, keys) if not any(f"{key}.".startswith(f"{name}.") for name in IRRELEVANT_KEYS)]


def _object(path: Path) -> dict[str, Any]:
    content = read_json(path)
    return content if isinstance(content, dict) else {}


def _hardware(meta: Mapping[str, Any]) -> str:
    """The name of the GPU or CPU that a run was trained on."""
    if str(meta.get("device", "")).startswith("cuda") and meta.get("gpus"):
        first = meta["gpus"][0]
        return str(first.get("name", first) if isinstance(first, dict) else first)
    cpu = meta.get("cpu") or {}
    threads = f", {meta['threads']} threads" if meta.get("threads") else ""
    return f"{cpu['model']}{threads}" if cpu.get("model") else str(meta.get("device", ""))


def _sessions(meta: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    sessions = meta.get("sessions")
    return [session for session in sessions if isinstance(session, dict)] if isinstance(sessions, list) else []


def _code(meta: Mapping[str, Any]) -> str:
    codes = [session["code"] for session in _sessions(meta) if isinstance(session.get("code"), dict)]
    return ", then ".join(dict.fromkeys(" ".join(f"{name} {content}" for name, content in code.items()) for code in codes))


def _threads(meta: Mapping[str, Any]) -> str:
    counts = [str(session["threads"]) for session in _sessions(meta) if session.get("threads")]
    return ", then ".join(dict.fromkeys(counts)) if meta.get("device") == "cpu" else ""


def _commit(meta: Mapping[str, Any]) -> str:
    """The shortened commit hash, followed by ``+`` if the code differed from it."""
    git = meta.get("git") or {}
    return f"{str(git['commit'])[:10]}{'+' if git.get('dirty') else ''}" if git.get("commit") else ""
