"""Taking over the state of a finished run into the directory of a longer one."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from altprop.tracking.parent_file import read_parent, write_parent
from altprop.training.checkpoint import CheckpointStore, read_checkpoint
from altprop.training.rundir import RunDirectory

log = logging.getLogger(__name__)


def take_over(parent: Path, directory: RunDirectory, config_text: str) -> None:
    """Copy checkpoints and records of the finished run ``parent`` into ``directory``, unless it has checkpoints already.

    The checkpoints are written with the key and the configuration of the longer run. ``last.pt`` comes last, so an interrupted
    copy is repeated.
    """
    store = CheckpointStore(directory.checkpoints, directory.key)
    if not store.is_empty():
        return
    if (parent / directory.metrics.name).exists():
        shutil.copyfile(parent / directory.metrics.name, directory.metrics)
    files = sorted((parent / "checkpoints").glob("*.pt"), key=lambda file: file.name == "last.pt")
    for file in files:
        if not file.name.startswith("last-"):
            state = read_checkpoint(file, parent.name)
            store.write(file.name, {**state, "key": directory.key, "config": config_text})
    write_parent(directory.path, {**read_parent(parent), "run": f"{directory.name}/{parent.name}"})
    log.info("starts from the end of %s", parent)
