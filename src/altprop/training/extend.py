"""Taking over the state of a finished run into the directory of a longer one."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from altprop.checkpoint_files import LAST
from altprop.files import NotRegular, read_bytes, temporary_path, write_bytes
from altprop.problems import ConfigError, Problem, RunFailed
from altprop.tensor_file import BadCheckpoint
from altprop.tracking.metrics_file import CSV_NAME, JSON_NAME
from altprop.tracking.parent_file import read_parent, write_parent
from altprop.training.checkpoint import CheckpointStore, read_checkpoint
from altprop.training.rundir import RunDirectory

log = logging.getLogger(__name__)


def check_parent(parent: Path) -> None:
    """Raise ConfigError if the run ``parent``, from which a longer one starts, has no complete checkpoint."""
    newest, complaints = _parent_store(parent).newest()
    if newest is None:
        what = "; ".join(complaints) or f"{parent} has no checkpoint"
        allowed = "a run with a complete checkpoint is made longer; this one can be trained again"
        raise ConfigError([Problem("run", what, allowed, f"run={parent} resume=false")])


def take_over(parent: Path, directory: RunDirectory, config_text: str) -> None:
    """Copy checkpoints and records of the finished run ``parent`` into ``directory``, unless it has checkpoints already.

    The checkpoints are written with the key and the configuration of the longer run. They appear all at once, so a copy that was
    interrupted is repeated. Damaged ones are left out with a warning; ``last.pt`` is the newest of the others.
    """
    store = CheckpointStore(directory.checkpoints, directory.key)
    if not store.is_empty():
        return
    for name in (JSON_NAME, CSV_NAME):  # if the first one is damaged, the records are restored from the second one
        with suppress(FileNotFoundError, NotRegular):
            write_bytes(directory.path / name, read_bytes(parent / name))
    newest, complaints = _parent_store(parent).newest()
    for complaint in complaints:
        log.warning("skipped: %s", complaint)
    if newest is None:
        raise RunFailed(f"{parent} has no complete checkpoint any more")
    copies = CheckpointStore(temporary_path(directory.checkpoints), directory.key)
    own = {"key": directory.key, "config": config_text}
    for file in sorted((parent / "checkpoints").glob("*.pt")):
        if not file.name.startswith("last"):
            with suppress(BadCheckpoint):
                copies.write(file.name, {**read_checkpoint(file, parent.name), **own})
    copies.write(LAST, {**newest.state, **own})
    write_parent(directory.path, {**read_parent(parent), "run": f"{directory.name}/{parent.name}"})
    store.clear()
    os.replace(copies.folder, store.folder)
    log.info("starts from the end of %s", parent)


def _parent_store(parent: Path) -> CheckpointStore:
    return CheckpointStore(parent / "checkpoints", parent.name)
