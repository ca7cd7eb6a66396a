"""A command whose standard output is closed or full: training goes on, other commands end without a traceback."""

from __future__ import annotations

import errno
import io
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig
from rich.console import Console as RichConsole

from altprop.commands.entry import entry_point
from altprop.config.project import ROOT
from altprop.tracking.console import Console
from altprop.training.run import train
from altprop.training.signals import Stopped
from tests.training.fixtures import make_parts


class Broken(io.StringIO):
    """Standard output that cannot be written from the second line on."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.lines = 0

    def write(self, text: str) -> int:
        self.lines += text.count("\n")
        if self.lines > 1:
            raise OSError(self.number, os.strerror(self.number))
        return len(text)


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC, errno.EIO])
def test_a_console_that_cannot_be_written_to_does_not_stop_training(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "dup2", lambda *arguments: None)  # Rich replaces standard output when the pipe is closed
    parts = make_parts(tmp_path)
    object.__setattr__(parts, "trackers", {"console": Console(console=RichConsole(file=Broken(number)))})
    assert train(parts)["status"] == "done"
    assert "logger.console is switched off" in caplog.text


def raising(error: BaseException) -> Callable[[DictConfig], None]:
    def run(config: DictConfig) -> None:
        raise error

    return run


def hiding(error: Exception) -> Exception:
    other = AttributeError("partially initialized module")
    other.__context__ = error
    return other


FAULTS: dict[str, tuple[BaseException, int, str]] = {
    "a full disk": (OSError(errno.ENOSPC, "No space left on device", "report.md"), 1, "No space left on device: report.md; free"),
    "a file of somebody else": (PermissionError(errno.EACCES, "Permission denied", "x"), 1, "Permission denied: x; choose"),
    "too many files": (OSError(errno.EMFILE, "Too many open files"), 1, "Too many open files; raise the limit"),
    "no memory": (MemoryError(), 1, "out of host memory"),
    "no memory for a library": (
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        1,
        "out of host memory",
    ),
    "no memory, hidden": (hiding(MemoryError()), 1, "out of host memory"),
    "a closed pipe": (BrokenPipeError(errno.EPIPE, "Broken pipe"), 0, ""),
    "Ctrl-C": (Stopped(2), 130, "stopped by SIGINT"),
    "a cluster's signal": (Stopped(15), 143, "stopped by SIGTERM"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_of_the_machine_is_one_line(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error, code, line = FAULTS[case]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["status.py"])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    try:
        entry_point("status", raising(error))
        left = 0
    except SystemExit as leaving:
        left = int(leaving.code or 0)
    printed = capsys.readouterr().err.splitlines()
    assert left == code
    assert len(printed) == bool(line)
    assert "".join(printed).startswith(line)
    logging.getLogger("altprop").setLevel(logging.NOTSET)


UNUSABLE = {
    "standard output is full": ("train.py --help >/dev/full", 1, "standard output cannot be written: No space left on device\n"),
    "standard error is full": ("train.py no=1 2>/dev/full", 2, ""),
    "standard error is closed": ("train.py no=1 2>&-", 2, ""),
    "all are closed": ("train.py no=1 <&- >&- 2>&-", 2, ""),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_the_exit_code_does_not_depend_on_the_standard_streams(case: str) -> None:
    command, code, errors = UNUSABLE[case]
    done = subprocess.run(f"{sys.executable} {command}", cwd=ROOT, shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", errors)


@pytest.mark.slow
def test_a_pipe_that_closes_after_one_line_does_not_end_training(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "train.py"), f"paths.outputs={tmp_path}", "model.hidden=[4]", "trainer.duration=2ep"]
    limits = ["dataset=shapes", "dataset.limit_train=100", "dataset.limit_test=100", "trainer.figures=false"]
    with subprocess.Popen([*command, *limits], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert "logger.console is switched off" in errors
