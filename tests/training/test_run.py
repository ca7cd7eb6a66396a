"""The life of a run: it finishes, resumes to the same bits, refuses company, and says what went wrong."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from altprop.algorithms.backprop import Backprop
from altprop.algorithms.schedule import Schedule
from altprop.problems import ConfigError, Problem, RunFailed
from altprop.tracking.fanout import Trackers
from altprop.tracking.metrics_file import read_metrics
from altprop.training.checkpoint import read_checkpoint
from altprop.training.run import train
from altprop.training.rundir import RunDirectory
from altprop.training.settings import EarlyStopping
from tests.algorithms.harness import STEPS_PER_EPOCH, assert_equal
from tests.training.fixtures import make_parts


class Interrupted(Backprop):
    """Sends this process a signal, or raises, before step ``at``."""

    def __init__(self, at: int, number: int | BaseException) -> None:
        super().__init__()
        self.at = at
        self.number = number

    def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        if self.step == self.at:
            if isinstance(self.number, BaseException):
                raise self.number
            os.kill(os.getpid(), self.number)
        return super().update(inputs, targets)


def records(directory: Path) -> list[dict[str, Any]]:
    kept = read_metrics(directory / "metrics.jsonl")
    return [{key: value for key, value in record.items() if not key.startswith("time/")} for record in kept]


def final_state(directory: Path) -> dict[str, Any]:
    state = read_checkpoint(directory / "checkpoints" / "last.pt")
    for name in ("seconds", "train_seconds", "best", "last"):
        state["progress"].pop(name)
    return state


def test_a_run_leaves_its_files_and_is_not_trained_twice(tmp_path: Path) -> None:
    parts = make_parts(tmp_path)
    status = train(parts)
    assert status["status"] == "done"
    assert status["step"] == 4 * STEPS_PER_EPOCH
    assert status["last"]["test/accuracy"] > 90
    for name in ("config.yaml", "meta.json", "status.json", "metrics.jsonl", "metrics.csv", "checkpoints/last.pt"):
        assert (parts.directory / name).is_file()
    assert (tmp_path / "latest").resolve() == parts.directory.resolve()
    written = (parts.directory / "checkpoints" / "last.pt").stat().st_mtime_ns
    status = train(make_parts(tmp_path))
    assert status["status"] == "done"
    model = final_state(parts.directory)["algorithm"]["model"]
    learnt = [tensor for name, tensor in model.items() if name.endswith(("weight", "bias"))]  # not batch norm's statistics
    assert status["parameters"] == sum(tensor.numel() for tensor in learnt)
    assert (parts.directory / "checkpoints" / "last.pt").stat().st_mtime_ns == written
    train(make_parts(tmp_path, resume=False))
    assert (parts.directory / "checkpoints" / "last.pt").stat().st_mtime_ns != written


@pytest.mark.parametrize(
    ("interval", "rates"),
    [("epoch", [0.01, 0.001, 1e-4]), ("step", [0.01 * 0.5 ** (STEPS_PER_EPOCH * epoch - 1) for epoch in (1, 2, 3)])],
)
def test_records_hold_the_rate_of_their_last_step(tmp_path: Path, interval: Any, rates: list[float]) -> None:
    scheduler = (
        partial(torch.optim.lr_scheduler.MultiStepLR, milestones=[1, 2])
        if interval == "epoch"
        else partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
    )
    parts = make_parts(tmp_path, duration="3ep", schedule=Schedule(scheduler=scheduler, interval=interval))
    train(parts)
    assert [record["train/learning_rate"] for record in records(parts.directory)] == pytest.approx(rates)


class EvaluatedAt(Backprop):
    """Asks for an evaluation after step 3."""

    @property
    def evaluation_due(self) -> bool:
        return self.step == 3

    def progress_metrics(self) -> dict[str, float]:
        return {"train/rounds": float(self.step)}


@pytest.mark.parametrize(("every", "steps"), [("1ep", [3, STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH]), (None, [2 * STEPS_PER_EPOCH])])
def test_an_algorithm_may_ask_for_evaluations(tmp_path: Path, every: str | None, steps: list[int]) -> None:
    parts = make_parts(tmp_path, duration="2ep", evaluate_every=every, algorithm=EvaluatedAt())
    train(parts)
    assert [record["step"] for record in records(parts.directory)] == steps
    assert all("test/accuracy" in record and record["train/rounds"] == record["step"] for record in records(parts.directory))


@pytest.mark.parametrize("at", [0, 1, STEPS_PER_EPOCH - 1, STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH + 3])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_goes_on_bit_exactly(tmp_path: Path, at: int, number: int, code: int) -> None:
    straight = make_parts(tmp_path / "straight")
    train(straight)
    stopped = make_parts(tmp_path / "stopped", algorithm=Interrupted(at, number))
    with pytest.raises(SystemExit) as leaving:
        train(stopped)
    assert leaving.value.code == code
    directory = RunDirectory(stopped.directory, "tiny", stopped.key)
    assert (directory.read_status() or {})["status"] == "interrupted"
    assert (directory.read_status() or {})["step"] == at + 1
    train(make_parts(tmp_path / "stopped"))
    assert_equal(final_state(straight.directory), final_state(stopped.directory))
    assert records(straight.directory) == records(stopped.directory)


def test_a_stopped_run_tells_its_trackers_how_far_it_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summaries: list[dict[str, Any]] = []
    monkeypatch.setattr(Trackers, "finish", lambda self, status, summary: summaries.append({"status": status, **summary}))
    with pytest.raises(SystemExit):
        train(make_parts(tmp_path, algorithm=Interrupted(STEPS_PER_EPOCH + 2, signal.SIGINT)))
    [summary] = summaries
    assert (summary["status"], summary["step"]) == ("interrupted", STEPS_PER_EPOCH + 3)
    assert "test/accuracy" in summary


class Watched(Backprop):
    """Reads ``status.json`` at the beginning of every step."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.steps: list[int] = []

    def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        self.steps.append((RunDirectory(self.path, "tiny", "").read_status() or {})["step"])
        return super().update(inputs, targets)


@pytest.mark.parametrize(("seconds", "told"), [(0.0, 5), (1000.0, STEPS_PER_EPOCH)])
def test_the_status_follows_within_an_epoch(tmp_path: Path, seconds: float, told: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("altprop.training.loop.STATUS_EVERY", seconds)
    watched = Watched(make_parts(tmp_path).directory)
    train(make_parts(tmp_path, algorithm=watched))
    assert min(step for step in watched.steps if step) == told
    assert all(seen <= step for step, seen in enumerate(watched.steps))


def test_preemption_saves_then_hands_over_to_the_handler_before(tmp_path: Path) -> None:
    seen: list[Any] = []
    directory = make_parts(tmp_path).directory

    def requeue(number: int, frame: object) -> None:
        seen.append((number, RunDirectory(directory, "tiny", "").read_status()))
        raise SystemExit(0)

    before = signal.signal(signal.SIGUSR2, requeue)
    try:
        with pytest.raises(SystemExit):
            train(make_parts(tmp_path, algorithm=Interrupted(7, signal.SIGUSR2)))
        assert signal.getsignal(signal.SIGUSR2) is requeue
    finally:
        signal.signal(signal.SIGUSR2, before)
    [(number, status)] = seen
    assert number == signal.SIGUSR2
    assert (status["status"], status["step"]) == ("preempted", 8)
    assert read_checkpoint(directory / "checkpoints" / "last.pt")["step"] == 8


def test_a_second_trainer_is_refused(tmp_path: Path) -> None:
    parts = make_parts(tmp_path)
    with RunDirectory(parts.directory, "tiny", parts.key).lock(), pytest.raises(RunFailed, match="another process"):
        train(parts)


def test_a_crash_is_recorded_and_the_run_goes_on_later(tmp_path: Path) -> None:
    straight = make_parts(tmp_path / "straight")
    train(straight)
    crashed = make_parts(tmp_path / "crashed", algorithm=Interrupted(9, ValueError("something broke")))
    with pytest.raises(ValueError, match="something broke"):
        train(crashed)
    status = RunDirectory(crashed.directory, "tiny", crashed.key).read_status() or {}
    assert (status["status"], status["error"]) == ("failed", "ValueError: something broke")
    train(make_parts(tmp_path / "crashed"))
    assert_equal(final_state(straight.directory), final_state(crashed.directory))
    assert records(straight.directory) == records(crashed.directory)


def test_memory_exhaustion_is_one_line(tmp_path: Path) -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    parts = make_parts(tmp_path, algorithm=Interrupted(3, error))
    with pytest.raises(RunFailed, match=r"out of memory; lower dataset.batch_size"):
        train(parts)
    assert "out of memory" in (RunDirectory(parts.directory, "tiny", parts.key).read_status() or {})["error"]


def test_a_mini_batch_of_one_image_under_batch_norm_is_one_line(tmp_path: Path) -> None:
    error = ValueError("Expected more than 1 value per channel when training, got input size torch.Size([1, 16])")
    with pytest.raises(RunFailed, match=r"a mini-batch of a single image.*dataset.drop_last=true"):
        train(make_parts(tmp_path, algorithm=Interrupted(3, error)))


class Diverging(Backprop):
    """Returns a loss that is not a number at step 9 (1-based)."""

    def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        metrics = super().update(inputs, targets)
        return {**metrics, "loss": metrics["loss"] * float("nan")} if self.step == 8 else metrics


@pytest.mark.parametrize("log_every", [1, 5, 1000])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, log_every: int) -> None:
    parts = make_parts(tmp_path, algorithm=Diverging(), log_every=log_every)
    with pytest.raises(
        RunFailed, match=rf"became nan at step 9 \(epoch 2\); the last good checkpoint is that of step {STEPS_PER_EPOCH} "
    ):
        train(parts)
    assert read_checkpoint(parts.directory / "checkpoints" / "last.pt")["step"] == STEPS_PER_EPOCH


def test_durations_in_steps_and_shares(tmp_path: Path) -> None:
    parts = make_parts(tmp_path, duration="20st", evaluate_every="25%", checkpoint_every="7st")
    train(parts)
    assert [record["step"] for record in records(parts.directory)] == [5, 10, 15, 20]
    assert read_checkpoint(parts.directory / "checkpoints" / "last.pt")["step"] == 20
    assert read_checkpoint(parts.directory / "checkpoints" / "last-1.pt")["step"] in (14, 15)


def test_the_best_checkpoint_is_chosen_on_validation(tmp_path: Path) -> None:
    parts = make_parts(tmp_path)
    train(parts)
    best = max(records(parts.directory), key=lambda record: (record["validation/accuracy"], -record["step"]))
    assert read_checkpoint(parts.directory / "checkpoints" / "best.pt")["step"] == best["step"]


def test_selection_on_test_is_said_loudly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(make_parts(tmp_path, select_on="test", duration="1ep"))
    assert "ON THE TEST SPLIT" in caplog.text
    assert read_checkpoint(make_parts(tmp_path).directory / "checkpoints" / "best.pt")["step"] == STEPS_PER_EPOCH


@pytest.mark.parametrize(("when", "steps"), [("end", [4 * STEPS_PER_EPOCH]), ("never", [])])
def test_the_test_split_is_evaluated_at_the_end_or_never(tmp_path: Path, when: str, steps: list[int]) -> None:
    parts = make_parts(tmp_path, evaluate_test=when)
    train(parts)
    assert [record["step"] for record in records(parts.directory) if "test/accuracy" in record] == steps
    assert len([record for record in records(parts.directory) if "validation/accuracy" in record]) == 4


def test_a_run_that_stops_early_evaluates_the_test_split_at_its_end(tmp_path: Path) -> None:
    rule = EarlyStopping(metric="validation/loss", patience=1, min_delta=100.0)
    status = train(make_parts(tmp_path, duration="50ep", early_stopping=rule, evaluate_test="end"))
    assert status["step"] == 2 * STEPS_PER_EPOCH
    assert "test/accuracy" in status["last"]


def test_early_stopping(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rule = EarlyStopping(metric="validation/loss", patience=2, min_delta=100.0)
    parts = make_parts(tmp_path, duration="50ep", early_stopping=rule)
    with caplog.at_level("INFO"):
        status = train(parts)
    assert status["step"] == 3 * STEPS_PER_EPOCH
    assert status["stopped_early"] == "stopped early at epoch 3: validation/loss"
    assert status["stopped_early"] in caplog.messages
    assert "stopped_early" not in train(make_parts(tmp_path / "short", duration="1ep", early_stopping=rule))


def test_early_stopping_on_the_test_split_prints_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(make_parts(tmp_path, early_stopping=EarlyStopping(metric="test/loss"), duration="1ep"))
    assert "TO THE TEST SPLIT" in caplog.text


def test_overfitting_one_batch_repeats_it(tmp_path: Path) -> None:
    parts = make_parts(tmp_path, duration="60ep", limit_batches=1, overfit=True, evaluate_every=None)
    status = train(parts)
    assert status["step"] == 60
    assert len(records(parts.directory)) == 1


def test_initial_weights_are_kept_when_asked(tmp_path: Path) -> None:
    parts = make_parts(tmp_path, save_initial=True, duration="1ep")
    train(parts)
    initial = read_checkpoint(parts.directory / "checkpoints" / "initial.pt", parts.key)
    assert initial["step"] == 0
    assert not initial["algorithm"]["optimizers"][0]["optimizer"]["state"]


def test_checkpoints_of_chosen_epochs_stay(tmp_path: Path) -> None:
    parts = make_parts(tmp_path, keep_epochs=[1, 2], keep=1, checkpoint_every=None, duration="4ep")
    train(parts)
    folder = parts.directory / "checkpoints"
    assert sorted(path.name for path in folder.glob("epoch-*.pt")) == ["epoch-1.pt", "epoch-2.pt"]
    steps = [read_checkpoint(folder / name, parts.key)["step"] for name in ("epoch-1.pt", "epoch-2.pt", "last.pt")]
    assert steps == [step * steps[0] for step in (1, 2, 4)]


def test_epochs_to_keep_behind_the_end_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(make_parts(tmp_path, keep_epochs=[1, 9], duration="2ep"))
    assert "trainer.keep_epochs: the run ends after 2 epochs, before [9]" in caplog.text


class OfAnotherVersion(Backprop):
    """Saves less than it wants back."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        raise KeyError("momentum of the second kind")


def test_a_checkpoint_of_other_code_is_one_line_and_stays(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        train(make_parts(tmp_path, algorithm=Interrupted(7, signal.SIGINT)))
    parts = make_parts(tmp_path, algorithm=OfAnotherVersion())
    saved = parts.directory / "checkpoints" / "last.pt"
    before = saved.read_bytes()
    with pytest.raises(RunFailed, match=r"last\.pt does not fit this code \(KeyError: .*second kind.*resume=false$"):
        train(parts)
    assert saved.read_bytes() == before


class Refusing(Backprop):
    """Finds a mistake that only the model shows."""

    def setup(self, *args: Any, **kwargs: Any) -> None:
        raise ConfigError([Problem("algorithm", "this model", "another")])


def test_a_mistake_found_while_building_leaves_nothing_behind(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    with pytest.raises(ConfigError):
        train(make_parts(outputs, algorithm=Refusing()))
    assert not outputs.exists()


def test_a_mistake_found_while_building_anew_costs_no_finished_run(tmp_path: Path) -> None:
    parts = make_parts(tmp_path, duration="1ep")
    train(parts)
    before = final_state(parts.directory)
    with pytest.raises(ConfigError):
        train(make_parts(tmp_path, algorithm=Refusing(), duration="1ep", resume=False))
    assert_equal(before, final_state(parts.directory))
    assert (RunDirectory(parts.directory, "tiny", "").read_status() or {})["status"] == "done"


class NeverClosed(Backprop):
    """Cannot give back what it holds."""

    def close(self) -> None:
        raise RunFailed("a worker does not answer")


def test_trackers_finish_where_an_algorithm_cannot_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = []
    monkeypatch.setattr(Trackers, "finish", lambda self, status, summary: finished.append(status))
    with pytest.raises(RunFailed, match="does not answer"):
        train(make_parts(tmp_path, algorithm=NeverClosed(), duration="1ep"))
    assert finished == ["done"]


def test_an_evaluation_before_the_first_step_changes_nothing(tmp_path: Path) -> None:
    parts, plain = make_parts(tmp_path / "first", evaluate_first=True), make_parts(tmp_path / "plain")
    for each in (parts, plain):
        train(each)
    first, *others = records(parts.directory)
    assert (first["epoch"], first["step"]) == (0, 0)
    assert first["test/accuracy"] < others[0]["test/accuracy"]
    assert "train/loss" not in first
    assert [record["test/loss"] for record in others] == [record["test/loss"] for record in records(plain.directory)]
    assert_equal(final_state(parts.directory), final_state(plain.directory))


def test_a_finished_run_says_that_other_code_made_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = make_parts(tmp_path)
    train(parts)
    caplog.clear()
    train(make_parts(tmp_path))
    assert "other conditions" not in caplog.text
    meta = json.loads((parts.directory / "meta.json").read_text())
    meta["code"]["altprop"]["content"], meta["threads"] = "000000000000", 64
    (parts.directory / "meta.json").write_text(json.dumps(meta))
    train(make_parts(tmp_path))
    (line,) = [record.message for record in caplog.records if "other conditions" in record.message]
    assert "content 000000000000" in line
    assert "torch used 64 threads" in line
    assert line.endswith("resume=false starts it over")


def test_a_resumed_run_records_the_code_of_each_session(tmp_path: Path) -> None:
    parts = make_parts(tmp_path)
    train(parts)
    (session,) = json.loads((parts.directory / "meta.json").read_text())["sessions"]
    assert session["code"].keys() == {"altprop"}
    assert session["threads"] == torch.get_num_threads()
