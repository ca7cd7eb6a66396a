"""The W&B tracker, checked by reading back W&B's own offline files record by record."""

import json
import logging
import os
import signal
import struct
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from altprop.problems import Problem
from altprop.reporting.figures.standard import draw_confusion
from altprop.tracking import wandb_tracker
from altprop.tracking.fanout import Trackers
from altprop.tracking.wandb_tracker import WandB, has_credentials

pytest.importorskip("wandb")
pytestmark = pytest.mark.timeout(120)

FULL, LAST = 1, 4
"""Kinds of chunks in LevelDB's log format that end a record."""


@pytest.fixture(autouse=True)
def _no_account(monkeypatch, tmp_path) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", os.fspath(tmp_path / "netrc"))
    yield
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


def chunks(content: bytes) -> Iterator[bytes]:
    """Yield the records of a ``.wandb`` file: W&B's 7-byte header, then LevelDB's log format with 32 KiB blocks."""
    magic, number, version = struct.unpack("<4sHB", content[:7])
    assert (magic, number, version) == (b":W&B", 0xBEE1, 0)
    position, fragments = 7, []
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        checksum, length, kind = struct.unpack("<IHB", content[position : position + 7])
        data = content[position + 7 : position + 7 + length]
        assert zlib.crc32(bytes([kind]) + data) == checksum
        fragments.append(data)
        position += 7 + length
        if kind in (FULL, LAST):
            yield b"".join(fragments)
            fragments = []
    assert not fragments


def records_of(directory: Path) -> list[Any]:
    """Return all records of the newest offline file in ``directory``, after the service has closed it."""
    import wandb

    wandb.teardown()
    (path,) = sorted(directory.glob("wandb/offline-run-*/*.wandb"))[-1:]
    return records_in(path)


def records_in(path: Path) -> list[Any]:
    """Return all records of one closed offline file."""
    from wandb.proto import wandb_internal_pb2

    records = []
    for data in chunks(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        records.append(record)
    return records


def of_kind(records: list[Any], kind: str) -> list[Any]:
    return [getattr(record, kind) for record in records if record.WhichOneof("record_type") == kind]


def items(updates: Any) -> dict[str, Any]:
    """Return values by name. Images and histograms have one value per nested key."""
    values: dict[str, Any] = {}
    for item in updates:
        *outer, last = [item.key] if item.key else item.nested_key
        target = values
        for name in outer:
            target = target.setdefault(name, {})
        target[last] = json.loads(item.value_json)
    return values


def history(records: list[Any]) -> list[dict[str, Any]]:
    """Return the rows as logged, without values that wandb adds."""
    rows = [items(row.item) for row in of_kind(records, "history")]
    return [{name: value for name, value in row.items() if not name.startswith("_")} for row in rows]


def summary(records: list[Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for update in of_kind(records, "summary"):
        merged.update(items(update.update))
    return merged


def record(step: int, loss: float, accuracy: float, **more: float) -> dict[str, float]:
    values = {"epoch": step / 10, "step": step, "train/loss": loss, "test/accuracy": accuracy, "time/elapsed": 1.0 * step}
    return {**values, **more}


def test_a_complete_run(tmp_path, run_info):
    logged = [record(10, 0.9, 80.0), record(20, 0.5, 91.0), record(30, 0.7, 90.0, **{"weights/density": 0.1})]
    tracker = WandB(project="papers", entity="lab", mode="offline")
    tracker.start(run_info())
    for values in logged:
        tracker.log(values)
    matrix = draw_confusion(torch.tensor([0, 1]), torch.tensor([0, 0]), ["a", "b"], tmp_path / "confusion.png")
    tracker.figure("confusion", matrix)
    tracker.finish("done", {"test/accuracy": 90.0, "best/test/accuracy": 91.0})

    records = records_of(tmp_path)
    run = of_kind(records, "run")[0]
    assert (run.run_id, run.project, run.entity) == ("0a1b2c3d", "papers", "lab")
    assert (run.run_group, run.job_type, run.display_name) == ("ftprop", "train", "ftprop/quick seed 3")
    assert sorted(run.tags) == ["a", "b"]
    config = items(run.config.update)
    assert config["seed"] == 3
    assert config["model"] == {"_target_": "altprop.models.MLP", "sizes": [20, 10]}

    rows = history(records)
    assert rows[:3] == logged
    assert {name: rows[3][name] for name in ("epoch", "step")} == {"epoch": 3, "step": 30}
    image = rows[3]["figures/confusion"]
    (files,) = tmp_path.glob("wandb/offline-run-*/files")
    assert (files / image["path"]).read_bytes() == matrix.read_bytes()

    results = summary(records)
    assert results["max/test/accuracy"] == 91.0
    assert results["min/train/loss"] == 0.5
    assert results["test/accuracy"] == 90.0
    assert results["best/test/accuracy"] == 91.0
    assert not [name for name in results if name.startswith(("max/", "min/")) and "time" in name]

    axes = {metric.name: metric.step_metric for metric in of_kind(records, "metric")}
    assert axes["test/accuracy"] == axes["train/loss"] == "epoch"
    assert axes["weights/density"] == axes["time/elapsed"] == axes["figures/confusion"] == "step"
    assert not axes["epoch"]
    assert of_kind(records, "exit")[0].exit_code == 0


@pytest.mark.parametrize(("status", "code"), [("failed", 1), ("preempted", 1), ("interrupted", 255)])
def test_an_unsuccessful_run_has_an_exit_code(tmp_path, run_info, status, code):
    tracker = WandB(mode="offline")
    tracker.start(run_info())
    tracker.log(record(10, 0.9, 80.0))
    if status == "preempted":
        tracker.preempting()
    tracker.finish(status, {})
    records = records_of(tmp_path)
    assert of_kind(records, "exit")[0].exit_code == code
    assert len(of_kind(records, "preempting")) == (status == "preempted")


def test_a_resumed_run_keeps_its_id_and_extremes_and_drops_no_row(tmp_path, run_info):
    def session(values: list[dict[str, float]], **facts: Any) -> list[Any]:
        trackers = Trackers({"wandb": WandB(mode="offline")}, tmp_path)
        trackers.start(run_info(**facts))
        for logged in values:
            trackers.log(logged)
        trackers.finish("done", {})
        return records_of(tmp_path)

    first = session([record(10, 0.1, 95.0), record(20, 0.5, 99.0)])
    for old in tmp_path.glob("wandb/offline-run-*"):
        old.rename(tmp_path / "first")
    second = session([record(20, 0.6, 90.0), record(30, 0.4, 91.0)], resumed=True, start_step=10)
    assert of_kind(first, "run")[0].run_id == of_kind(second, "run")[0].run_id
    assert [row["step"] for row in history(second)] == [20, 30]
    results = summary(second)
    assert (results["max/test/accuracy"], results["min/train/loss"]) == (
        95.0,
        0.1,
    )  # step 20 of the first session was after its checkpoint


def test_two_runs_in_one_process_are_two_runs(tmp_path, run_info):
    for name in ("one", "two"):
        directory = tmp_path / name
        directory.mkdir()
        tracker = WandB(mode="offline")
        tracker.start(run_info(key=name, directory=directory))
        tracker.log(record(10, 0.5, 90.0 if name == "one" else 80.0))
        if name == "two":  # the first was never finished
            tracker.finish("done", {})
    for name, accuracy in (("one", 90.0), ("two", 80.0)):
        records = records_of(tmp_path / name)
        assert of_kind(records, "run")[0].run_id == name
        assert [row["test/accuracy"] for row in history(records)] == [accuracy]


def test_requested_gradients_are_in_the_row_of_their_step(tmp_path, run_info):
    model = nn.Linear(3, 2)
    trackers = Trackers({"wandb": WandB(mode="offline", watch="gradients")}, tmp_path)
    trackers.start(run_info())
    trackers.watch(model)
    model(torch.ones(4, 3)).sum().backward()
    trackers.log(record(10, 0.5, 90.0))
    trackers.finish("done", {})
    (row,) = history(records_of(tmp_path))
    histogram = row["gradients/weight"]
    assert histogram["_type"] == "histogram"
    assert np.sum(histogram["values"]) == 6
    assert "parameters/weight" not in row


def test_disabled_writes_nothing_and_requests_no_histograms(tmp_path, run_info):
    tracker = WandB(mode="disabled", watch="all")
    assert tracker.watched is None
    tracker.start(run_info())
    tracker.log(record(10, 0.5, 90.0))
    tracker.figure("confusion", tmp_path / "none.png")
    tracker.preempting()
    tracker.finish("done", {})
    assert os.listdir(tmp_path) == []


def test_online_without_an_account_writes_offline_files_and_never_prompts(tmp_path, run_info, caplog):
    with caplog.at_level(logging.WARNING):
        tracker = WandB(mode="online")
        tracker.start(run_info())
        tracker.log(record(10, 0.5, 90.0))
        tracker.finish("done", {})
    (message,) = [entry.getMessage() for entry in caplog.records if entry.name.startswith("altprop")]
    assert message.startswith(
        "W&B cannot be reached (no account is set up on this machine (wandb login)); upload later with: wandb sync"
    )
    assert Path(message.rsplit(" ", 1)[1]).is_dir()
    assert history(records_of(tmp_path)) == [record(10, 0.5, 90.0)]


def test_an_unreachable_server_loses_nothing(tmp_path, run_info, caplog, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(wandb_tracker, "INIT_TIMEOUT", 1.0)
    with caplog.at_level(logging.WARNING):
        trackers = Trackers({"wandb": WandB(mode="online")}, tmp_path)
        trackers.start(run_info())
        trackers.log(record(10, 0.5, 90.0))
        trackers.finish("done", {})
    (message,) = [entry.getMessage() for entry in caplog.records if entry.name.startswith("altprop")]
    assert message.startswith("W&B cannot be reached (")
    assert history(records_of(tmp_path)) == [record(10, 0.5, 90.0)]


IN_A_PROCESS = """
    import logging, os, signal, sys, time
    from pathlib import Path
    from altprop.tracking.base import RunInfo
    from altprop.tracking.fanout import Trackers
    from altprop.tracking.wandb_tracker import WandB

    logging.basicConfig(format="%(message)s")
    directory = Path(sys.argv[1])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # SIGINT is ignored if the tests were started in the background
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    trackers = Trackers({"wandb": WandB(mode="offline")}, directory)
    trackers.start(RunInfo("key", "name", directory, {"seed": 0}, 0, 1, 1, False, "group"))
    trackers.log({"epoch": 1, "step": 1, "train/loss": 0.5})
    while not list(directory.glob("wandb/offline-run-*/*.wandb")):
        time.sleep(0.05)
"""


def run_process(directory: Path, program: str) -> subprocess.CompletedProcess[str]:
    code = textwrap.dedent(IN_A_PROCESS) + textwrap.dedent(program)
    return subprocess.run([sys.executable, "-c", code, directory], capture_output=True, text=True, timeout=100, check=False)


def test_signals_reach_the_program_and_nothing_is_printed(tmp_path):
    program = """
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(30)
        except KeyboardInterrupt:
            trackers.finish("interrupted", {})
            sys.exit(130)
    """
    result = run_process(tmp_path, program)
    assert (result.returncode, result.stdout, result.stderr) == (128 + signal.SIGINT, "", "")
    records = records_of(tmp_path)
    assert len(history(records)) == 1
    assert of_kind(records, "exit")[0].exit_code == 255


def test_training_survives_the_death_of_the_service(tmp_path):
    program = """
        import contextlib
        import psutil
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # some end with their parent, which was just killed
                child.kill()
                child.wait()
        for step in range(2, 20):
            trackers.log({"epoch": step, "step": step, "train/loss": 0.5})
            time.sleep(0.02)
        trackers.finish("done", {})
    """
    result = run_process(tmp_path, program)
    assert result.returncode == 0
    # wandb does not always notice, so there may be no warning
    assert result.stderr.count("logger.wandb is switched off for the rest of this run") <= 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 19


def test_credentials_come_from_the_environment_or_netrc(tmp_path, monkeypatch):
    assert not has_credentials()
    (tmp_path / "netrc").write_text("machine other.example.org login user password secret\n")
    assert not has_credentials()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert has_credentials()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not has_credentials()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert has_credentials()


def test_online_without_an_account_is_a_problem_before_the_run(monkeypatch):
    (problem,) = WandB.check({"mode": "online"}, {})
    assert isinstance(problem, Problem)
    assert problem.key == "logger.wandb.mode"
    assert "logger.wandb.mode=offline" in problem.fix
    assert list(WandB.check({"mode": "offline"}, {})) == []
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert list(WandB.check({}, {})) == []


@pytest.mark.parametrize(
    ("environment", "key", "expected"),
    [
        (None, None, "online"),
        ("offline", None, "offline"),
        ("disabled", None, "disabled"),
        ("dryrun", None, "offline"),
        ("", None, "online"),
        ("offline", "online", "online"),
        ("online", "disabled", "disabled"),
        ("WANDB_DISABLED=true", None, "disabled"),
        ("WANDB_DISABLED=false", None, "online"),
        ("WANDB_DISABLED=true", "offline", "offline"),
    ],
)
def test_the_environment_wins_over_the_default_and_a_key_over_the_environment(monkeypatch, environment, key, expected):
    if environment is not None:
        name, _, value = environment.rpartition("=")
        monkeypatch.setenv(name or "WANDB_MODE", value)
    assert WandB(mode=key).mode == expected
    asks_for_an_account = bool(list(WandB.check({"mode": key}, {})))
    assert asks_for_an_account == (expected == "online")


def test_the_folder_of_the_environment_has_the_files(tmp_path, run_info, monkeypatch):
    monkeypatch.setenv("WANDB_DIR", os.fspath(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    tracker = WandB(mode="offline")
    tracker.start(run_info())
    tracker.finish("done", {})
    assert len(list(tmp_path.glob("elsewhere/**/*.wandb"))) == 1
    assert len(list(tmp_path.rglob("*.wandb"))) == 1


def test_the_project_of_the_environment_is_used(monkeypatch):
    assert WandB().project == "altprop"
    monkeypatch.setenv("WANDB_PROJECT", "papers")
    assert WandB().project == "papers"
    assert WandB(project="mine").project == "mine"


def test_an_unknown_mode_in_the_environment_is_a_problem(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "of")
    [problem] = WandB.check({}, {})
    assert str(problem).startswith(
        "logger.wandb.mode: WANDB_MODE=of in the environment; WANDB_MODE is online, offline or disabled"
    )
    assert list(WandB.check({"mode": "offline"}, {})) == []
