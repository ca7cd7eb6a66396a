"""A damaged or foreign file in a run directory is one line; what can be restored is restored, and what is lost is said."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from altprop.checkpoint_files import names_of
from altprop.files import NotRegular, append_line, link_atomically
from altprop.nn.weights.saved_run import read_algorithm_state
from altprop.problems import ConfigError, RunFailed
from altprop.reporting.runs import read_runs
from altprop.tensor_file import BadCheckpoint
from altprop.training.checkpoint import CheckpointStore, read_checkpoint
from altprop.training.run import train
from altprop.training.rundir import RunDirectory
from tests.algorithms.harness import STEPS_PER_EPOCH, assert_equal
from tests.reporting.fixtures import write_run
from tests.training.fixtures import make_parts
from tests.training.test_run import Interrupted, final_state, records

STATUSES = {
    "a list": "[1]",
    "a number": "3",
    "empty": "",
    "half": '{"status": "do',
    "no record": '{"status": "done", "last": null}',
    "wrong types": '{"status": 3, "step": "x", "last": [1], "best": 7, "epoch": "y", "peak_memory": {"bytes": "z"}}',
    "wrong values": '{"status": "failed", "last": {"test/accuracy": "high"}, "best": {"test/accuracy": null}}',
    "deep": "[" * 100_000,
    "NULs": "\0" * 100,
    "not text": "\udcff",
    "half a character": '{"status": "\\ud800", "stopped_early": "\\ud800"}',
    "a huge number": f'{{"status": "done", "step": {"9" * 5000}}}',
}


@pytest.mark.parametrize("case", STATUSES)
def test_a_damaged_status_does_not_stop_a_run(case: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        train(make_parts(tmp_path, algorithm=Interrupted(7, 2)))
    parts = make_parts(tmp_path)
    (parts.directory / "status.json").write_text(STATUSES[case], errors="surrogateescape")
    assert train(parts)["status"] == "done"


@pytest.mark.parametrize("case", STATUSES)
def test_a_damaged_run_does_not_hide_the_others(case: str, tmp_path: Path) -> None:
    write_run(tmp_path, "good", "00000000000a", [1.0, 2.0])
    bad = write_run(tmp_path, "bad", "00000000000b", [1.0, 2.0])
    (bad / "status.json").write_text(STATUSES[case], errors="surrogateescape")
    runs, unreadable = read_runs(tmp_path)
    assert "good" in [run.name for run in runs]
    assert len(runs) + len(unreadable) == 2


FOREIGN = {
    "metrics.jsonl": ["x\n", "[1]\n", '{"test/accuracy": "high", "epoch": 1, "step": 1}\n', "{}\n", "\0\0\0\n"],
    "meta.json": ["[1]", '{"command": 3}', '{"gpus": 3, "device": "cuda"}', '{"git": [1]}', '{"cpu": "fast"}'],
    "config.yaml": ["a: [", "[1]", "name: x\nseed: 0\nmodel: 3\nalgorithm: [1]\ntrainer: 5\n", "name: 3\nseed: x\n", "\0"],
}


@pytest.mark.parametrize(("name", "content"), [(name, content) for name, contents in FOREIGN.items() for content in contents])
def test_no_file_of_one_run_breaks_the_list_of_all(name: str, content: str, tmp_path: Path) -> None:
    write_run(tmp_path, "good", "00000000000a", [1.0, 2.0])
    (write_run(tmp_path, "bad", "00000000000b", [1.0, 2.0]) / name).write_text(content)
    runs, unreadable = read_runs(tmp_path)
    assert "good" in [run.name for run in runs]
    assert len(runs) + len(unreadable) == 2
    assert all("\n" not in each.reason for each in unreadable)


@pytest.mark.parametrize("meta", FOREIGN["meta.json"])
def test_a_damaged_description_does_not_stop_a_run(meta: str, tmp_path: Path) -> None:
    parts = make_parts(tmp_path, duration="1ep")
    parts.directory.mkdir(parents=True)
    (parts.directory / "meta.json").write_text(meta)
    assert train(parts)["status"] == "done"


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bad middle line": lambda path: path.write_bytes(_lines(path)[0] + b'{"epo\n' + b"".join(_lines(path)[2:])),
    "emptied": lambda path: path.write_bytes(b""),
    "removed": lambda path: path.unlink(),
    "a lost line": lambda path: path.write_bytes(b"".join(_lines(path)[1:])),
    "ending in NULs": lambda path: path.write_bytes(path.read_bytes()[:-50] + bytes(50)),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-50]),
    "a value that is text": lambda path: path.write_bytes(path.read_bytes().replace(b'"epoch": 2.0', b'"epoch": "2"')),
}


@pytest.mark.parametrize("case", DAMAGES)
@pytest.mark.parametrize("table", ["whole", "lost"])
def test_damaged_records_are_restored_or_missed_aloud(
    case: str, table: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    straight = make_parts(tmp_path / "straight")
    train(straight)
    with pytest.raises(SystemExit):
        train(make_parts(tmp_path / "damaged", algorithm=Interrupted(3 * STEPS_PER_EPOCH, 2)))
    parts = make_parts(tmp_path / "damaged")
    DAMAGES[case](parts.directory / "metrics.jsonl")
    if table == "lost":
        (parts.directory / "metrics.csv").unlink()
    caplog.clear()
    train(parts)
    assert_equal(final_state(straight.directory), final_state(parts.directory))
    if table == "whole":
        assert records(parts.directory) == records(straight.directory)
        assert "its records are restored from metrics.csv" in caplog.text
    else:
        assert len(records(parts.directory)) < len(records(straight.directory))
        assert "of the 3 records up to step 19, which are lost" in caplog.text


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"format": 1}))
        archive.writestr("archive/version", "3")


def _without(name: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        state = _state()
        del state[name]
        torch.save(state, path)

    return write


def _with(name: str, value: Any) -> Callable[[Path], None]:
    return lambda path: torch.save({**_state(), name: value}, path)


def _state() -> dict[str, Any]:
    return {"format": 1, "key": make_parts(Path()).key, "step": 3, "algorithm": {}, "progress": {}, "random": {}}


BAD_FILES: dict[str, Callable[[Path], object]] = {
    "a pipe": _fifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": lambda path: path.mkdir(),
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "text": lambda path: path.write_text("root:x:0:0:root:/root:/bin/bash\n"),
    "empty": lambda path: path.write_bytes(b""),
    "a foreign archive": _archive,
    "an archive of nothing": lambda path: zipfile.ZipFile(path, "w").close(),
    "a tensor": lambda path: torch.save(torch.zeros(3), path),
    "no step": _without("step"),
    "no random state": _without("random"),
    "no progress": _without("progress"),
    "no algorithm": _without("algorithm"),
    "a step that is text": _with("step", "3"),
    "another format": _with("format", 2),
    "two different steps": _with("progress", {"step": 10**9}),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_checkpoint_is_named_and_skipped(case: str, tmp_path: Path) -> None:
    BAD_FILES[case](tmp_path / "last.pt")
    with pytest.raises(BadCheckpoint, match=r"^[^\n]*last\.pt[^\n]*$"):
        read_checkpoint(tmp_path / "last.pt")
    newest, complaints = CheckpointStore(tmp_path, make_parts(tmp_path).key).newest()
    assert (newest, len(complaints)) == (None, 1)


NO_WEIGHTS = [
    case
    for case in BAD_FILES
    if case not in ("no step", "no random state", "no progress", "a step that is text", "two different steps")
]


@pytest.mark.parametrize("case", NO_WEIGHTS)
def test_weights_from_a_bad_file_are_one_line(case: str, tmp_path: Path) -> None:
    BAD_FILES[case](tmp_path / "last.pt")
    with pytest.raises(ConfigError, match=r"^algorithm.weights_from: [^\n]*last\.pt[^\n]*$"):
        read_algorithm_state(str(tmp_path / "last.pt"), "algorithm.weights_from")


def _converted(dtype: torch.dtype) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The model's tensors in another ``dtype``, to which torch would convert them without a word."""
    return lambda state: {
        "algorithm": {
            **state["algorithm"],
            "model": {name: value.to(dtype) for name, value in state["algorithm"]["model"].items()},
        }
    }


BROKEN: dict[str, Any] = {
    "random": {"random": {"torch": 3}},
    "progress": {"progress": {"epoch": "one"}},
    "algorithm": {"algorithm": {"model": [1, 2]}},
    "integers": _converted(torch.int8),
    "complex numbers": _converted(torch.complex64),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_checkpoint_with_foreign_content_is_one_line(case: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        train(make_parts(tmp_path, algorithm=Interrupted(2, 2)))
    parts = make_parts(tmp_path)
    last = parts.directory / "checkpoints" / "last.pt"
    state = read_checkpoint(last)
    change = BROKEN[case]
    torch.save({**state, **(change(state) if callable(change) else change)}, last)
    with pytest.raises(RunFailed, match=r"^[^\n]*does not fit this code[^\n]*$"):
        train(parts)


def test_a_bad_file_next_to_good_ones_does_not_stop_a_run(tmp_path: Path) -> None:
    straight = make_parts(tmp_path / "straight")
    train(straight)
    with pytest.raises(SystemExit):
        train(make_parts(tmp_path / "run", algorithm=Interrupted(7, 2)))
    parts = make_parts(tmp_path / "run")
    for case in ("a pipe", "a device", "a foreign archive"):
        BAD_FILES[case](parts.directory / "checkpoints" / f"{case}.pt".replace(" ", "-"))
    train(parts)
    assert_equal(final_state(straight.directory), final_state(parts.directory))


IN_PLACE_OF_RECORDS = {case: BAD_FILES[case] for case in ("a pipe", "a device", "a folder", "a dangling link")}


@pytest.mark.parametrize(("case", "others"), [(case, False) for case in BAD_FILES] + [("a pipe", True), ("empty", True)])
def test_a_run_with_a_bad_checkpoint_is_made_longer_from_a_good_one(
    case: str, others: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parent, longer = make_parts(tmp_path, duration="1ep"), make_parts(tmp_path, key="cdef0123456789", duration="2ep")
    train(parent)
    object.__setattr__(longer, "extends", parent.directory)
    checkpoints = parent.directory / "checkpoints"
    for path in list(checkpoints.glob("*.pt")):
        if not others or path.name == "last.pt":
            path.unlink()
    BAD_FILES[case](checkpoints / "last.pt")
    if others:
        assert train(longer)["status"] == "done"
        assert "skipped: " in caplog.text
        assert [record["epoch"] for record in records(longer.directory)] == [1, 2]
    else:
        with pytest.raises(ConfigError, match=r"^run: [^\n]*last\.pt[^\n]*; try: run=.* resume=false$"):
            train(longer)
        assert not longer.directory.exists()


def test_a_folder_in_the_place_of_a_link_is_named_and_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(b"")
    (tmp_path / "best.pt").mkdir()
    with pytest.raises(IsADirectoryError, match=r"best\.pt"):
        link_atomically(tmp_path / "last.pt", tmp_path / "best.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt"]


def test_only_names_of_checkpoints_are_linked() -> None:
    foreign = ["../x.pt", ".", "..", "a" * 300 + ".pt", "\0.pt", ".x.pt", "config.yaml", 3]
    assert names_of({"names": [*foreign, "best.pt", "epoch-3.pt"]}) == ["best.pt", "epoch-3.pt"]
    assert names_of({"names": 3}) == []


@pytest.mark.parametrize("case", ["a pipe", "a device", "a folder"])
def test_a_line_is_appended_to_a_regular_file_only(case: str, tmp_path: Path) -> None:
    IN_PLACE_OF_RECORDS[case](tmp_path / "evaluations.jsonl")
    with pytest.raises(NotRegular, match=f"evaluations.jsonl is {case}, not a file"):
        append_line(tmp_path / "evaluations.jsonl", "{}")


@pytest.mark.parametrize("case", IN_PLACE_OF_RECORDS)
def test_a_run_without_readable_records_is_made_longer(case: str, tmp_path: Path) -> None:
    parent, longer = make_parts(tmp_path, duration="1ep"), make_parts(tmp_path, key="cdef0123456789", duration="2ep")
    train(parent)
    object.__setattr__(longer, "extends", parent.directory)
    (parent.directory / "metrics.jsonl").unlink()
    IN_PLACE_OF_RECORDS[case](parent.directory / "metrics.jsonl")
    train(longer)
    assert [record["epoch"] for record in records(longer.directory)] == [1, 2]  # the first one from metrics.csv


def test_a_run_is_not_done_twice_by_an_unreadable_status(tmp_path: Path) -> None:
    parts = make_parts(tmp_path, duration="1ep")
    train(parts)
    content = json.loads((parts.directory / "status.json").read_text())
    (parts.directory / "status.json").write_text(json.dumps({**content, "last": None}))
    assert RunDirectory(parts.directory, parts.name, parts.key).finished
    assert train(make_parts(tmp_path, duration="1ep"))["status"] == "done"
