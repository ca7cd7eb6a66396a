"""One job of a sweep as submitit stores it: the command line of one run."""

from __future__ import annotations

import runpy
import sys
from typing import Any


class TrainJob:
    """Runs ``altprop train <arguments>`` in a process that submitit has set up, so that submitit can requeue the job."""

    def __init__(self, arguments: list[str]) -> None:
        self.arguments = arguments

    def __call__(self) -> None:
        sys.argv = ["altprop", "train", *self.arguments]
        runpy.run_module("altprop", run_name="__main__")

    def checkpoint(self) -> Any:
        """The job after a requeue: the same command, which resumes from the newest checkpoint in the run directory."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
