"""A signal at any time of a run is one line, exit code 128 plus its number, and a status that says what happened."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from altprop.algorithms.backprop import Backprop
from altprop.data.base import Data, LoadContext
from altprop.training import artifacts
from altprop.training.run import train
from altprop.training.rundir import RunDirectory
from altprop.training.signals import Stopped, StopRequests, stopping_at_once
from tests.algorithms.harness import STEPS_PER_EPOCH, assert_equal
from tests.training.fixtures import TinyDataSet, make_parts
from tests.training.test_run import Interrupted, final_state, records


def kill(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


class StoppedWhileLoading(TinyDataSet):
    """Receives a signal while the data is loaded."""

    def __init__(self, number: int) -> None:
        self.number = number

    def load(self, context: LoadContext) -> Data:
        kill(self.number)
        return super().load(context)


class Importing(StoppedWhileLoading):
    """Receives a signal in code that swallows it, or raises an error of its own instead, as interrupted imports do."""

    def __init__(self, number: int, replaced: bool) -> None:
        super().__init__(number)
        self.replaced = replaced

    def load(self, context: LoadContext) -> Data:
        try:
            super().load(context)
        except BaseException as stop:
            if self.replaced:
                raise AttributeError("partially initialized module") from stop
        return TinyDataSet.load(self, context)


class StoppedWhileRestoring(Backprop):
    """Receives a signal while its state is restored."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def load_state_dict(self, state: Any) -> None:
        kill(self.number)
        super().load_state_dict(state)


class Impatient(Backprop):
    """Receives Ctrl-C twice within step 9."""

    def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        if self.step == 8:
            kill(signal.SIGINT, signal.SIGINT)
        return super().update(inputs, targets)


@contextmanager
def drawing(action: Callable[[], None]) -> Iterator[None]:
    before = artifacts.draw_figures
    artifacts.draw_figures = lambda *arguments: action()
    try:
        yield
    finally:
        artifacts.draw_figures = before


STOPS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2]


def status_of(outputs: Path) -> dict[str, Any]:
    parts = make_parts(outputs)
    return RunDirectory(parts.directory, parts.name, parts.key).read_status() or {}


def expected_status(number: int) -> str:
    return "preempted" if number == signal.SIGUSR2 else "interrupted"


@pytest.mark.parametrize("number", STOPS)
def test_while_the_data_of_a_new_run_is_loaded(number: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = make_parts(tmp_path / "outputs")
    object.__setattr__(parts, "data_set", StoppedWhileLoading(number))
    with pytest.raises(SystemExit) as leaving:
        train(parts)
    assert leaving.value.code == 128 + number
    assert not (tmp_path / "outputs").exists()
    assert f"stopped by {signal.Signals(number).name} before training began" in caplog.text


@pytest.mark.parametrize("replaced", [True, False])
def test_while_code_runs_that_hides_the_request(replaced: bool, tmp_path: Path) -> None:
    parts = make_parts(tmp_path / "outputs")
    object.__setattr__(parts, "data_set", Importing(signal.SIGTERM, replaced))
    with pytest.raises(SystemExit) as leaving:
        train(parts)
    assert leaving.value.code == 128 + signal.SIGTERM
    assert (tmp_path / "outputs").exists() is not replaced
    if not replaced:  # the loop reads the request before its first step
        assert status_of(tmp_path / "outputs")["status"] == "interrupted"


@pytest.mark.parametrize("replaced", [True, False])
def test_while_a_command_runs_code_that_hides_the_request(replaced: bool) -> None:
    def command(*arguments: object) -> None:
        try:
            kill(signal.SIGINT)
        except BaseException as stop:
            if replaced:
                raise AttributeError("partially initialized module") from stop
        with StopRequests():
            pytest.fail("the command goes on")

    with pytest.raises(Stopped), StopRequests():
        command()


@pytest.mark.parametrize("number", STOPS)
def test_while_modules_are_imported(number: int, capfd: pytest.CaptureFixture[str]) -> None:
    if (pid := os.fork()) == 0:
        signal.signal(number, signal.SIG_DFL)
        with stopping_at_once():
            kill(number)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + number
    assert capfd.readouterr().err == f"stopped by {signal.Signals(number).name}\n"


@pytest.mark.parametrize("number", STOPS)
def test_while_a_run_is_restored(number: int, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        train(make_parts(tmp_path, algorithm=Interrupted(7, signal.SIGINT)))
    with pytest.raises(SystemExit) as leaving:
        train(make_parts(tmp_path, algorithm=StoppedWhileRestoring(number)))
    assert leaving.value.code == 128 + number
    assert (status_of(tmp_path)["status"], status_of(tmp_path)["step"]) == ("interrupted", 8)


@pytest.mark.parametrize("number", STOPS)
def test_while_training(number: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SystemExit) as leaving:
        train(make_parts(tmp_path, algorithm=Interrupted(7, number)))
    assert leaving.value.code == 128 + number
    assert (status_of(tmp_path)["status"], status_of(tmp_path)["step"]) == (expected_status(number), 8)
    assert "after step 8; everything is saved. Resume with: python train.py run=" in caplog.text


@pytest.mark.parametrize("number", STOPS)
def test_while_the_figures_are_drawn(number: int, tmp_path: Path) -> None:
    with drawing(lambda: kill(number)), pytest.raises(SystemExit) as leaving:
        train(make_parts(tmp_path, figures=True))
    assert leaving.value.code == 128 + number
    assert status_of(tmp_path)["status"] == expected_status(number)
    assert train(make_parts(tmp_path))["status"] == "done"


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    straight = make_parts(tmp_path / "straight")
    train(straight)
    parts = make_parts(tmp_path / "stopped", algorithm=Impatient())
    with pytest.raises(SystemExit) as leaving:
        train(parts)
    assert leaving.value.code == 130
    status = status_of(tmp_path / "stopped")
    assert (status["status"], status["step"]) == ("interrupted", STEPS_PER_EPOCH)
    assert "error" not in status
    assert "the newest checkpoint is complete. Resume with:" in caplog.text
    train(make_parts(tmp_path / "stopped"))
    assert_equal(final_state(straight.directory), final_state(parts.directory))
    assert records(straight.directory) == records(parts.directory)


def test_a_hangup_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequests() as requests:
            kill(signal.SIGHUP)
        assert requests.received is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_command_is_told_of_a_preemption_through_another_command() -> None:
    called: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: called.append(number))
    try:
        with StopRequests():
            with StopRequests() as inner:
                with pytest.raises(Stopped):
                    kill(signal.SIGUSR2)
                inner.hand_over()
            kill(signal.SIGTERM)  # SLURM sends it to a job that was requeued
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert called == [signal.SIGUSR2]
