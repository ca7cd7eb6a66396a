"""Checkpoints: one dict of tensors and plain values in one file, written whole or not at all, loaded without executing anything.

Layout of the dict: ``format`` (version), ``key`` and ``name`` (whose run it is), ``step``, ``config`` (YAML text), ``algorithm``
(:meth:`Algorithm.state_dict`), ``progress`` (:class:`altprop.training.progress.Progress`), ``random`` (states of all generators).
"""

from __future__ import annotations

import os
import pickle
import random
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from altprop.files import write_atomically, write_bytes

FORMAT = 1
LAST, BEST, INITIAL = "last.pt", "best.pt", "initial.pt"


class BadCheckpoint(Exception):  # noqa: N818 - it says what the file is
    """The file is torn, foreign, or not a checkpoint of this program; the message says which, in one line."""


@dataclass(frozen=True)
class Found:
    """A complete checkpoint and where it lay."""

    path: Path
    state: dict[str, Any]


class CheckpointStore:
    """The ``checkpoints/`` folder of one run."""

    def __init__(self, folder: Path, key: str, keep: int = 2) -> None:
        self.folder = folder
        self.key = key
        self.recent = [LAST, *(f"last-{age}.pt" for age in range(1, keep))]

    def save(self, state: Mapping[str, Any], *, best: bool = False, keep_as: str | None = None) -> None:
        """Write ``last.pt``; the ones before stay as ``last-1.pt``, …. With ``best`` the same file is also ``best.pt``, and
        with ``keep_as`` it also has that name, under which nothing ever replaces it.

        Raises ``OSError`` when the disk is full; what was there before is then still there.
        """
        for newer, older in reversed(list(pairwise(self.recent))):
            if (self.folder / newer).exists():
                _link(self.folder / newer, self.folder / older)
        self.write(LAST, state)
        if best:
            _link(self.folder / LAST, self.folder / BEST)
        if keep_as is not None:
            _link(self.folder / LAST, self.folder / keep_as)

    def write(self, name: str, state: Mapping[str, Any]) -> None:
        """Write ``state`` to the file ``name``, atomically."""
        write_atomically(self.folder / name, lambda stream: torch.save(dict(state), stream))

    def newest(self) -> tuple[Found | None, list[str]]:
        """The newest complete checkpoint of this run, and one line for every file that had to be passed over."""
        complaints = []
        found: Found | None = None
        for path in sorted(self.folder.glob("*.pt"), key=lambda path: (path.name != LAST, path.name)):
            if path.name == INITIAL:
                continue
            try:
                state = read_checkpoint(path, self.key)
            except BadCheckpoint as error:
                complaints.append(str(error))
                continue
            if found is None or state["step"] > found.state["step"]:
                found = Found(path, state)
        return found, complaints

    def clear(self) -> None:
        """Remove all checkpoints, for a run that starts anew."""
        for path in self.folder.glob("*.pt"):
            path.unlink()


def read_checkpoint(path: Path, key: str | None = None, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Load and check the checkpoint in ``path``. With ``key``, refuse one that belongs to another run.

    Raises :class:`BadCheckpoint`. Only tensors and plain values are accepted, so nothing in the file is ever executed.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise BadCheckpoint(f"{path}: not a complete checkpoint ({error})") from error
    if damaged is not None:
        raise BadCheckpoint(f"{path}: damaged (checksum of {damaged} is wrong)")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadCheckpoint(f"{path}: refused, it holds more than tensors and plain values ({reason})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise BadCheckpoint(f"{path}: not a checkpoint of this program (format {FORMAT})")
    if key is not None and state.get("key") != key:
        raise BadCheckpoint(f"{path}: belongs to run {state.get('key')}, not to {key}")
    return state


def random_state(generators: Mapping[str, torch.Generator]) -> dict[str, Any]:
    """The states of every random stream of this process, as tensors and plain values."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(internal), gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "generators": {key: generator.get_state() for key, generator in generators.items()},
    }


def restore_random_state(state: Mapping[str, Any], generator: Any) -> None:
    """Put every random stream back; ``generator(name)`` returns the generator of that name (:meth:`Context.generator`)."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all([value.cpu() for value in state["cuda"]])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    for key, value in state["generators"].items():
        generator(key).set_state(value.cpu())


def _link(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``, atomically; a copy where the file system has no hard links."""
    temporary = target.with_name(f".{target.name}.link")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        write_bytes(target, source.read_bytes())
        return
    os.replace(temporary, target)
