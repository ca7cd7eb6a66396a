"""Hydra callbacks, named in ``conf/train.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class SweepNotes(Callback):
    """Remembers where Hydra writes its notes of a sweep, because it does so before it looks at the jobs."""

    folder: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        SweepNotes.folder = Path(config.hydra.sweep.dir)

    @classmethod
    def discard(cls) -> None:
        """Remove the notes, and the folders that held nothing else, of a sweep that was refused."""
        if cls.folder is None:
            return
        (cls.folder / "multirun.yaml").unlink(missing_ok=True)
        for folder in (cls.folder, *cls.folder.parents[:2]):  # the sweep's, .sweeps, paths.outputs
            try:
                folder.rmdir()
            except OSError:  # not empty, or never made
                break
