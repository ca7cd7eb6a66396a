"""Checkpoints are data, whole or passed over, and belong to one run."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from altprop.algorithms.context import Context
from altprop.training import checkpoint as checkpoints
from altprop.training.checkpoint import (
    FORMAT,
    BadCheckpoint,
    CheckpointStore,
    random_state,
    read_checkpoint,
    restore_random_state,
)
from altprop.training.saving import own_random_state

KEY = "0123456789ab"


def state(step: int, key: str = KEY) -> dict[str, object]:
    weights = {"weights": torch.full((100,), float(step))}
    return {"format": FORMAT, "key": key, "name": "tiny", "step": step, "algorithm": weights, "progress": {}, "random": {}}


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", KEY)


def test_the_newest_is_found(store: CheckpointStore) -> None:
    assert store.newest() == (None, [])
    for step in (1, 2, 3):
        store.save(state(step), best=step == 2)
    found, complaints = store.newest()
    assert complaints == []
    assert found is not None
    assert found.state["step"] == 3
    assert sorted(path.name for path in store.folder.iterdir()) == ["best.pt", "last-1.pt", "last.pt"]
    assert read_checkpoint(store.folder / "best.pt", KEY)["step"] == 2


def test_keep_one_keeps_one(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, KEY, keep=1)
    for step in (1, 2):
        store.save(state(step))
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_torn_file_is_reported_and_the_one_before_is_used(store: CheckpointStore, share: float) -> None:
    store.save(state(1))
    store.save(state(2))
    last = store.folder / "last.pt"
    content = last.read_bytes()
    last.unlink()  # last-1.pt is a link of its own; a write in place must not reach it
    last.write_bytes(content[: int(share * len(content))])
    found, complaints = store.newest()
    assert found is not None
    assert found.state["step"] == 1
    assert len(complaints) == 1
    assert "last.pt" in complaints[0]


def test_every_flipped_byte_of_the_weights_is_noticed(store: CheckpointStore) -> None:
    store.save(state(1))
    path = store.folder / "last.pt"
    content = bytearray(path.read_bytes())
    start = bytes(content).index(torch.full((100,), 1.0).numpy().tobytes())
    for offset in range(start, start + 400, 37):
        damaged = bytearray(content)
        damaged[offset] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(BadCheckpoint, match="damaged"):
            read_checkpoint(path, KEY)


def test_a_checkpoint_of_another_run_is_refused(store: CheckpointStore) -> None:
    store.save(state(5, key="another"))
    found, complaints = store.newest()
    assert found is None
    assert "belongs to run another" in complaints[0]


def test_swapped_files_do_not_go_back_in_time(store: CheckpointStore) -> None:
    store.save(state(1))
    store.save(state(2))
    last, before = store.folder / "last.pt", store.folder / "last-1.pt"
    newer, older = last.read_bytes(), before.read_bytes()
    for path, content in ((last, older), (before, newer)):
        path.unlink()
        path.write_bytes(content)
    found, _ = store.newest()
    assert found is not None
    assert found.state["step"] == 2


class Malicious:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_file_is_executed(store: CheckpointStore, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    store.folder.mkdir()
    torch.save({**state(1), "weights": Malicious(trap)}, store.folder / "last.pt")
    with pytest.raises(BadCheckpoint, match="more than tensors"):
        read_checkpoint(store.folder / "last.pt", KEY)
    (store.folder / "last.pt").write_bytes(pickle.dumps(Malicious(trap)))
    with pytest.raises(BadCheckpoint, match="not a complete checkpoint"):
        read_checkpoint(store.folder / "last.pt", KEY)
    assert not trap.exists()


def test_a_foreign_archive_is_refused(store: CheckpointStore) -> None:
    store.folder.mkdir()
    with zipfile.ZipFile(store.folder / "last.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    found, complaints = store.newest()
    assert found is None
    assert len(complaints) == 1


def test_a_failed_write_leaves_what_was_there(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save(state(1))

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        store.save(state(2))
    monkeypatch.undo()
    found, complaints = store.newest()
    assert found is not None
    assert (found.state["step"], complaints) == (1, [])
    assert not list(store.folder.glob(".*"))


def context_of(**options: Any) -> Context:
    settings: dict[str, Any] = {"device": torch.device("cpu"), "seed": 0, "batch_size": 1, **options}
    return Context(steps_per_epoch=1, total_epochs=1, input_shape=(1, 1, 1), num_classes=2, **settings)


def test_random_streams_continue() -> None:
    first, second = context_of(), context_of()
    first.generator("dropout").seed()
    saved = random_state(first)
    expected = torch.rand(3), torch.rand(3, generator=first.generator("dropout"))
    torch.rand(7)
    assert restore_random_state(saved, second) == []
    assert torch.equal(torch.rand(3), expected[0])
    assert torch.equal(torch.rand(3, generator=second.generator("dropout")), expected[1])


def test_a_random_stream_of_another_kind_of_device_is_named() -> None:
    saved = random_state(context_of())
    saved["generators"]["dropout@device"] = torch.zeros(16, dtype=torch.uint8)  # the state of a CUDA generator has 16 bytes
    [line] = restore_random_state(saved, context_of())
    assert "dropout@device" in line


def test_a_run_on_a_gpu_says_that_its_stream_is_not_in_a_checkpoint_of_a_cpu() -> None:
    saved = random_state(context_of())
    [line] = restore_random_state(saved, context_of(device=torch.device("cuda", 0)))
    assert "cuda:0" in line


def test_every_process_continues_its_own_random_streams(caplog: pytest.LogCaptureFixture) -> None:
    saved = {"random": "first", "random_of_ranks": ["first", "second"]}
    ranks = [context_of(rank=rank, world_size=3) for rank in range(3)]
    assert [own_random_state(saved, context) for context in ranks] == ["first", "second", "first"]
    assert "process 2" in caplog.text
    assert own_random_state(saved, context_of()) == "first"
