import logging
import sys
import threading
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from altprop.tracking import fanout
from altprop.tracking.base import Tracker
from altprop.tracking.fanout import Trackers, histogram, histograms_of
from altprop.tracking.metrics_file import read_metrics


class Recorder(Tracker):
    """Records its calls and their threads; the method named ``fail`` raises."""

    def __init__(self, fail: str = "", error: BaseException | None = None) -> None:
        self.fail = fail
        self.error = error if error is not None else ValueError("no\nroute")
        self.calls: list[tuple[str, Any]] = []
        self.threads: set[str] = set()

    def _note(self, method: str, argument: Any = None) -> None:
        self.calls.append((method, argument))
        self.threads.add(threading.current_thread().name)
        if method == self.fail:
            raise self.error

    def start(self, run):
        self._note("start", run)

    def log(self, record):
        self._note("log", dict(record))

    def progress(self, epoch, step, values):
        self._note("progress", step)

    def histograms(self, epoch, step, values):
        self._note("histograms", values)

    def figure(self, name, path):
        self._note("figure", name)

    def preempting(self):
        self._note("preempting")

    def finish(self, status, summary):
        self._note("finish", (status, dict(summary)))

    @property
    def methods(self) -> list[str]:
        return [method for method, _ in self.calls]


class InlineRecorder(Recorder):
    inline = True


class Blocked(Recorder):
    """Blocks in ``start`` until released, like an unreachable service."""

    finish_timeout = 0.05

    def __init__(self) -> None:
        super().__init__()
        self.release = threading.Event()

    def start(self, run):
        self._note("start", run)
        self.release.wait(60)


def record(step: int) -> Mapping[str, float]:
    return {"epoch": step / 10, "step": step, "train/loss": 0.5}


def run_all(trackers: Trackers, info, status="done") -> None:
    trackers.start(info)
    trackers.progress(0, 5, {})
    trackers.log(record(10))
    trackers.figure("confusion", info.directory / "confusion.png")
    trackers.preempting()
    trackers.finish(status, {"test/accuracy": 9.5})


def test_calls_arrive_in_order_inline_or_in_their_own_thread(tmp_path, run_info):
    inline, threaded = InlineRecorder(), Recorder()
    run_all(Trackers({"inline": inline, "service": threaded}, tmp_path), run_info())
    assert inline.methods == ["start", "progress", "log", "figure", "preempting", "finish"]
    assert threaded.methods == ["start", "log", "figure", "preempting", "finish"]
    assert inline.threads == {threading.current_thread().name}
    assert threaded.threads == {"altprop-service"}
    assert threaded.calls[-1] == ("finish", ("done", {"test/accuracy": 9.5}))
    assert read_metrics(tmp_path / "metrics.jsonl") == [record(10)]


@pytest.mark.parametrize("kind", [Recorder, InlineRecorder])
@pytest.mark.parametrize("method", ["start", "log", "figure", "preempting", "finish"])
def test_a_failing_tracker_is_reported_once_and_switched_off(tmp_path, run_info, caplog, kind, method):
    failing, healthy = kind(fail=method), Recorder()
    trackers = Trackers({"failing": failing, "healthy": healthy}, tmp_path)
    with caplog.at_level(logging.WARNING):
        trackers.start(run_info())
        for step in range(10, 50, 10):
            trackers.log(record(step))
        trackers.figure("f", tmp_path / "f.png")
        trackers.preempting()
        trackers.finish("preempted", {})
    assert [entry.getMessage() for entry in caplog.records] == [
        "logger.failing is switched off for the rest of this run: ValueError: no"
    ]
    failed_at = failing.methods.index(method)
    assert set(failing.methods[failed_at + 1 :]) <= {"finish"}
    assert healthy.methods == ["start", *["log"] * 4, "figure", "preempting", "finish"]
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 4


def test_an_exit_in_a_service_thread_is_reported(tmp_path, run_info, caplog):
    with caplog.at_level(logging.WARNING):
        run_all(Trackers({"service": Recorder(fail="log", error=SystemExit(3))}, tmp_path), run_info())
    assert "logger.service is switched off for the rest of this run: SystemExit: 3" in caplog.text


def test_a_keyboard_interrupt_in_an_inline_tracker_is_not_swallowed(tmp_path, run_info):
    trackers = Trackers({"console": InlineRecorder(fail="log", error=KeyboardInterrupt())}, tmp_path)
    trackers.start(run_info())
    with pytest.raises(KeyboardInterrupt):
        trackers.log(record(10))


def test_an_unreachable_service_delays_neither_training_nor_its_end(tmp_path, run_info, caplog, monkeypatch):
    monkeypatch.setattr(fanout, "CAPACITY", 5)
    blocked = Blocked()
    with caplog.at_level(logging.WARNING):
        trackers = Trackers({"service": blocked}, tmp_path)
        trackers.start(run_info())
        for step in range(1, 50):
            trackers.log(record(step))
        trackers.finish("done", {})
    assert blocked.methods == ["start"]  # it still blocks, although the run is over
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 49
    assert [entry.getMessage() for entry in caplog.records] == [
        "logger.service is switched off for the rest of this run: it did not finish within 0.05 s; metrics.jsonl is complete"
    ]
    blocked.release.set()


def test_missed_calls_of_a_slow_service_are_reported(tmp_path, run_info, caplog, monkeypatch):
    monkeypatch.setattr(fanout, "CAPACITY", 5)
    blocked = Blocked()
    blocked.finish_timeout = 30.0
    with caplog.at_level(logging.WARNING):
        trackers = Trackers({"service": blocked}, tmp_path)
        trackers.start(run_info())
        while "start" not in blocked.methods:
            pass
        for step in range(1, 9):
            trackers.log(record(step))
        blocked.release.set()
        trackers.finish("done", {})
    assert blocked.methods == ["start", *["log"] * 5, "finish"]
    assert [entry.getMessage() for entry in caplog.records] == [
        "logger.service was too slow and missed 3 calls; metrics.jsonl is complete"
    ]


def test_a_full_disk_raises_and_the_services_still_finish(tmp_path, run_info, monkeypatch):
    service = Recorder()
    trackers = Trackers({"service": service}, tmp_path)
    trackers.start(run_info())
    monkeypatch.setattr("altprop.tracking.metrics_file.os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        trackers.log(record(10))
    trackers.finish("failed", {})
    assert service.methods == ["start", "finish"]


def test_finishing_without_a_start_is_harmless(tmp_path):
    service, inline = Recorder(), InlineRecorder()
    Trackers({"service": service, "inline": inline}, tmp_path).finish("failed", {})
    assert service.methods == []
    assert inline.methods == ["finish"]


def test_only_the_first_finish_has_an_effect(tmp_path, run_info):
    service, inline = Recorder(), InlineRecorder()
    trackers = Trackers({"service": service, "inline": inline}, tmp_path)
    trackers.start(run_info())
    trackers.finish("preempted", {})
    trackers.finish("failed", {})
    assert service.calls[1:] == inline.calls[1:] == [("finish", ("preempted", {}))]


def test_histograms_go_only_to_trackers_that_request_them(tmp_path, run_info):
    watching, other = Recorder(), Recorder()
    watching.watched = "all"
    model = nn.Linear(3, 2)
    model(torch.ones(4, 3)).sum().backward()
    trackers = Trackers({"watching": watching, "other": other}, tmp_path)
    trackers.start(run_info())
    trackers.watch(model)
    trackers.log(record(10))
    trackers.finish("done", {})
    assert watching.methods == ["start", "histograms", "log", "finish"]
    assert set(watching.calls[1][1]) == {f"{kind}/{name}" for kind in ("gradients", "parameters") for name in ("weight", "bias")}
    assert "histograms" not in other.methods


def test_histograms_count_every_finite_entry():
    values = torch.tensor([[0.0, 1.0, 2.0], [2.0, float("nan"), float("inf")]])
    result = histogram(values, bins=2)
    assert result.counts.tolist() == [1, 3]
    assert result.edges.tolist() == [0.0, 1.0, 2.0]
    assert histogram(torch.zeros(7), bins=3).counts.sum() == 7
    assert histogram(torch.tensor([]), bins=3).counts.sum() == 0


def test_histograms_of_requested_tensors():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model[1](torch.ones(1, 2)).sum().backward()
    assert set(histograms_of(model, "gradients")) == {"gradients/1.weight", "gradients/1.bias"}
    assert set(histograms_of(model, "parameters")) == {f"parameters/{name}" for name, _ in model.named_parameters()}
    assert histograms_of(model, None) == {}


def test_the_default_trackers_do_not_import_wandb():
    import subprocess

    program = "import sys, altprop.tracking.fanout, altprop.tracking.console; sys.exit('wandb' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
