"""A Hydra callback for sweeps, named in ``conf/train.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class SweepNotes(Callback):
    """Stores where Hydra writes its notes of a sweep, which it does before it checks the jobs."""

    folder: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        SweepNotes.folder = Path(config.hydra.sweep.dir)

    @classmethod
    def discard(cls) -> None:
        """Remove the notes of a refused sweep, and the folders that hold nothing else."""
        if cls.folder is None:
            return
        (cls.folder / "multirun.yaml").unlink(missing_ok=True)
        for folder in (cls.folder, *cls.folder.parents[:2]):  # the sweep's, .sweeps, paths.outputs
            try:
                folder.rmdir()
            except OSError:  # not empty, or never made
                break
