"""A disk that is full, limited, read-only or gone is one line; what was saved stays, and the run goes on afterwards."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import filelock
import pytest
import torch
from torch import Tensor

from altprop import files
from altprop.algorithms.backprop import Backprop
from altprop.faults import describe
from altprop.files import overwrite, remove_leftovers, temporary_path, write_atomically, write_bytes
from altprop.problems import ConfigError, RunFailed
from altprop.training.checkpoint import CheckpointStore
from altprop.training.run import train
from altprop.training.rundir import RunDirectory
from tests.training.fixtures import make_parts


class At(Backprop):
    """Calls ``action`` before step ``step``."""

    def __init__(self, step: int, action: Callable[[], None]) -> None:
        super().__init__()
        self.at = step
        self.action = action

    def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        if self.step == self.at:
            self.action()
        return super().update(inputs, targets)


def status_of(outputs: Path) -> dict[str, Any]:
    parts = make_parts(outputs)
    return RunDirectory(parts.directory, parts.name, parts.key).read_status() or {}


@pytest.fixture(params=[errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO])
def failing_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function that makes the disk fail after so many more bytes."""

    def fail(room: int) -> None:
        left = [room]
        write = files._RecordingFile.write

        def limited(file: Any, data: Any, /) -> int:
            left[0] -= len(data)
            if left[0] < 0:
                raise OSError(request.param, os.strerror(request.param))
            return write(file, data)

        monkeypatch.setattr(files._RecordingFile, "write", limited)

    return fail


@pytest.mark.parametrize("room", [0, 300, 3000, 6000, 9000])
def test_wherever_a_write_fails_it_is_one_line(failing_disk: Callable[[int], None], room: int, tmp_path: Path) -> None:
    parts = make_parts(tmp_path, algorithm=At(9, lambda: failing_disk(room)), checkpoint_every="1st")
    with pytest.raises(RunFailed, match=r"^[^\n]*; the checkpoints there are complete$"):
        train(parts)
    newest, complaints = CheckpointStore(parts.directory / "checkpoints", parts.key).newest()
    assert newest is not None
    assert (complaints, newest.state["step"] >= 8) == ([], True)
    assert not [path for path in parts.directory.rglob(".*") if path.name != ".lock"]


def test_a_limit_on_the_size_of_files_is_one_line(tmp_path: Path) -> None:
    parts = make_parts(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, before[1]))
    try:
        with pytest.raises(RunFailed, match=r"File too large.*ulimit -f"):
            train(parts)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert status_of(tmp_path)["status"] == "failed"
    assert train(make_parts(tmp_path))["status"] == "done"


def test_a_run_whose_directory_is_removed_says_so_and_does_not_come_back(tmp_path: Path) -> None:
    parts = make_parts(tmp_path)
    object.__setattr__(parts, "algorithm", At(9, lambda: shutil.rmtree(parts.directory)))
    with pytest.raises(RunFailed, match="was removed while the run was training"):
        train(parts)
    assert not parts.directory.exists()


def test_a_disk_without_room_for_another_file_keeps_no_run_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As tmpfs does with ``nr_inodes``: files that are there can be written, new ones cannot be created."""
    system_open = os.open

    def refuse(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & os.O_EXCL:
            raise OSError(errno.ENOSPC, "No space left on device", path)
        return system_open(path, flags, *arguments, **options)

    parts = make_parts(tmp_path, algorithm=At(9, lambda: monkeypatch.setattr(os, "open", refuse)), checkpoint_every="1st")
    with pytest.raises(RunFailed, match=r"^No space left on device: [^\n]*/(last-1.pt|last.pt|status.json); free some space"):
        train(parts)
    monkeypatch.undo()
    assert status_of(tmp_path)["status"] == "failed"


def test_overwriting_restores_what_the_file_held(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 10)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            overwrite(file, b"y" * 30)
        assert file.read_bytes() == b"x" * 10
        overwrite(file, b"z" * 5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert file.read_bytes() == b"z" * 5


UNUSABLE: dict[str, Callable[[Path], Path]] = {
    "a file": lambda folder: _written(folder / "outputs"),
    "below a file": lambda folder: _written(folder / "outputs") / "deeper",
    "a dangling link": lambda folder: _linked(folder / "outputs", folder / "nowhere"),
    "a link to itself": lambda folder: _linked(folder / "outputs", folder / "outputs"),
    "a name too long": lambda folder: folder / ("x" * 300),
}


def _written(path: Path) -> Path:
    path.write_text("")
    return path


def _linked(path: Path, target: Path) -> Path:
    path.symlink_to(target)
    return path


@pytest.mark.parametrize("case", UNUSABLE)
def test_outputs_that_cannot_be_used_are_one_line(case: str, tmp_path: Path) -> None:
    outputs = UNUSABLE[case](tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigError) as refusal:
        train(make_parts(outputs))
    [problem] = refusal.value.problems
    assert problem.key in ("paths.outputs", "name")
    assert "\n" not in str(problem)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOSPC])
def test_outputs_that_cannot_be_created_are_one_line(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number), "outputs")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ConfigError, match=f"paths.outputs: cannot write to outputs .{os.strerror(number)}"):
        train(make_parts(tmp_path / "outputs"))


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_is_warned_of(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filelock.FileLock, "_acquire", refuse)
    assert train(make_parts(tmp_path))["status"] == "done"
    assert "the file system has no locks" in caplog.text


def _hidden_by_torch(stream: IO[bytes]) -> None:
    torch.save({"weights": torch.zeros(10000)}, stream)


def test_an_error_that_torch_hides_is_the_disk_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Any, data: Any, /) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files._RecordingFile, "write", full)
    with pytest.raises(OSError, match="No space left") as failure:
        write_atomically(tmp_path / "last.pt", _hidden_by_torch)
    assert failure.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def _pipe(path: Path) -> None:
    os.mkfifo(path)


IN_THE_PLACE: dict[str, Callable[[Path], None]] = {
    "a folder": Path.mkdir,
    "a link to itself": lambda path: path.symlink_to(path),
    "a pipe": _pipe,
}


@pytest.mark.parametrize("case", IN_THE_PLACE)
@pytest.mark.parametrize("name", ["status.json", "metrics.jsonl", "metrics.csv", "meta.json", "config.yaml", "train.log"])
def test_anything_else_in_the_place_of_a_file_is_replaced_or_named(
    case: str, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = make_parts(tmp_path, duration="1ep")
    parts.directory.mkdir(parents=True)
    IN_THE_PLACE[case](parts.directory / name)
    if case == "a folder" and name != "train.log":  # it may hold something
        with pytest.raises(RunFailed) as failure:
            train(parts)
        line = f"Is a directory: {parts.directory / name}; altprop writes a file of this name: move the folder away"
        assert str(failure.value) == line
        assert name != "status.json" or "could not be written" not in caplog.text
    else:
        assert train(parts)["status"] == "done"


MEMORY = {
    "torch on the CPU": RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: 4 GB"),
    "Python": MemoryError(),
    "a GPU": torch.OutOfMemoryError("CUDA out of memory"),
    "the system": OSError(errno.ENOMEM, "Cannot allocate memory"),
}


@pytest.mark.parametrize("case", MEMORY)
def test_a_lack_of_memory_while_a_checkpoint_is_loaded_is_called_so(case: str, tmp_path: Path) -> None:
    train(make_parts(tmp_path, duration="1ep"))
    parts = make_parts(tmp_path)

    class Short(Backprop):
        def load_state_dict(self, state: Any) -> None:
            raise MEMORY[case]

    object.__setattr__(parts, "algorithm", Short())
    (parts.directory / "status.json").unlink()
    with pytest.raises(RunFailed, match=r"^out of (host )?memory; lower"):
        train(parts)


def test_a_worker_that_was_killed_is_one_line() -> None:
    error = RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed.")
    assert "dataset.workers" in (describe(error) or "")
    assert describe(ValueError("a bug")) is None


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_written_files_obey_the_umask(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_bytes(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.fixture
def dead_process() -> Iterator[int]:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid  # type: ignore[return-value]


def test_only_the_files_of_dead_processes_are_removed(tmp_path: Path, dead_process: int) -> None:
    own = temporary_path(tmp_path / "last.pt")
    dead = own.with_name(own.name.replace(f"-{os.getpid()}-", f"-{dead_process}-"))
    folder = dead.with_name(dead.name.replace("last.pt", "checkpoints"))
    old = [tmp_path / ".last.pt.k2j3h4.tmp", tmp_path / ".best.pt.link"]
    other = [tmp_path / "last.pt", tmp_path / ".lock", tmp_path / "notes.tmp"]
    folder.mkdir()
    for path in (own, dead, *old, *other):
        path.write_text("")
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([own, *other])


def test_the_next_start_removes_them(tmp_path: Path, dead_process: int) -> None:
    parts = make_parts(tmp_path)
    (parts.directory / "checkpoints").mkdir(parents=True)
    left = temporary_path(parts.directory / "checkpoints" / "last.pt")
    left = left.with_name(left.name.replace(f"-{os.getpid()}-", f"-{dead_process}-"))
    left.write_bytes(bytes(1000))
    train(parts)
    assert not left.exists()
