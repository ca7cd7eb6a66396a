"""A process that trains keeps the memory that it frees, unless the user has settings of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from altprop.allocator import keep_freed_memory
from altprop.training import device
from altprop.training.settings import TrainerSettings

GLIBC = "CS_GNU_LIBC_VERSION" in os.confstr_names
# Allocates, writes and frees 64 MiB ten times, as the activations of ten steps would, and prints how many pages the system gave.
STEPS = """
import ctypes, resource, sys
from altprop.allocator import keep_freed_memory
kept = sys.argv[1] == "kept" and keep_freed_memory()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
size = 2**26
for step in range(11):
    if step == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = library.malloc(ctypes.c_size_t(size))
    library.memset(ctypes.c_void_p(block), 1, ctypes.c_size_t(size))
    library.free(ctypes.c_void_p(block))
print(kept, (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / size)
"""


@pytest.mark.skipif(not GLIBC, reason="needs glibc")
@pytest.mark.parametrize(
    ("side", "settings", "kept"),
    [
        ("kept", {}, True),
        ("default", {}, False),
        ("kept", {"MALLOC_MMAP_THRESHOLD_": "1000000"}, False),
        ("kept", {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1000000"}, False),
    ],
)
def test_freed_memory_is_used_again(side: str, settings: dict[str, str], kept: bool) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run([sys.executable, "-c", STEPS, side], env=environment | settings, capture_output=True, check=True)
    answer, new_pages = done.stdout.split()
    assert answer == str(kept).encode()
    assert float(new_pages) < 0.1 if kept else float(new_pages) > 9


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "confstr_names", {})
    assert not keep_freed_memory()


def test_a_run_keeps_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(device, "keep_freed_memory", lambda: calls.append("kept"))
    device.configure_torch(TrainerSettings())
    assert calls == ["kept"]
