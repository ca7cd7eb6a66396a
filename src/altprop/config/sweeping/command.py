"""One job of a sweep as submitit stores it: the command line of one run."""

from __future__ import annotations

import sys
from typing import Any


class TrainJob:
    """``python train.py <arguments>`` inside a process that submitit has prepared, so that it can queue the job again."""

    def __init__(self, arguments: list[str]) -> None:
        self.arguments = arguments

    def __call__(self) -> None:
        from altprop.config.entry import check_task, entry_point, run_task
        from altprop.config.project import ROOT

        sys.argv = [str(ROOT / "train.py"), *self.arguments]
        entry_point("train", run_task, check_task)

    def checkpoint(self) -> Any:
        """What runs next time: the same, which goes on from the newest checkpoint in the run directory."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
