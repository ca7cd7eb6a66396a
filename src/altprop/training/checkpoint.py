"""Checkpoints: a dict of tensors and plain values in one file, written atomically and loaded without executing any code.

The dict holds ``format`` (version), ``key`` and ``name`` (of the run), ``step``, ``config`` (YAML text), ``algorithm``
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

from altprop.algorithms.context import Context
from altprop.files import write_atomically, write_bytes

FORMAT = 1
LAST, BEST, INITIAL = "last.pt", "best.pt", "initial.pt"


class BadCheckpoint(Exception):  # noqa: N818 - names what the file is
    """The file is truncated, belongs to another run, or is not a checkpoint of altprop; the message says which in one line."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint and its file."""

    path: Path
    state: dict[str, Any]


class CheckpointStore:
    """The ``checkpoints/`` folder of one run."""

    def __init__(self, folder: Path, key: str, keep: int = 2) -> None:
        self.folder = folder
        self.key = key
        self.recent = [LAST, *(f"last-{age}.pt" for age in range(1, keep))]

    def save(self, state: Mapping[str, Any], *, best: bool = False, keep_as: str | None = None) -> None:
        """Write ``last.pt``; earlier ones stay as ``last-1.pt``, and so on.

        With ``best`` the same file is also linked as ``best.pt``. With ``keep_as`` it is also linked under that name, which is
        never replaced. Raises ``OSError`` if the disk is full; the earlier files are then still there.
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

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest complete checkpoint of this run, and one line for each file that was skipped."""
        complaints = []
        newest: Checkpoint | None = None
        for path in sorted(self.folder.glob("*.pt"), key=lambda path: (path.name != LAST, path.name)):
            if path.name == INITIAL:
                continue
            try:
                state = read_checkpoint(path, self.key)
            except BadCheckpoint as error:
                complaints.append(str(error))
                continue
            if newest is None or state["step"] > newest.state["step"]:
                newest = Checkpoint(path, state)
        return newest, complaints

    def clear(self) -> None:
        """Remove all checkpoints, for a run that starts over."""
        for path in self.folder.glob("*.pt"):
            path.unlink()


def read_checkpoint(path: Path, key: str | None = None, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Load and check the checkpoint in ``path``. With ``key``, refuse a checkpoint of another run.

    Only tensors and plain values are accepted, so no code in the file is executed. Raises :class:`BadCheckpoint`.
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
        raise BadCheckpoint(f"{path}: it holds more than tensors and plain values ({reason})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise BadCheckpoint(f"{path}: not a checkpoint of altprop (format {FORMAT})")
    if key is not None and state.get("key") != key:
        raise BadCheckpoint(f"{path}: belongs to run {state.get('key')}, not to {key}")
    return state


def random_state(context: Context) -> dict[str, Any]:
    """The states of every random stream of this process, as tensors and plain values.

    ``cuda`` holds the state of the run's own device, or nothing if that is not a CUDA device.
    """
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state(context.device)] if context.device.type == "cuda" else [],
        "python": [version, list(internal), gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "generators": {key: generator.get_state() for key, generator in context.generators.items()},
    }


def restore_random_state(state: Mapping[str, Any], context: Context) -> list[str]:
    """Restore every random stream. Returns a line for each stream that cannot be restored on this device and starts anew."""
    lost = []
    torch.set_rng_state(state["torch"].cpu())
    if context.device.type == "cuda":
        # earlier versions saved the state of every CUDA device of the machine
        index = 0 if len(state["cuda"]) == 1 else torch.device(context.device).index or 0
        if index < len(state["cuda"]):
            torch.cuda.set_rng_state(state["cuda"][index].cpu(), context.device)
        else:
            lost.append(f"the random stream of {context.device}, of dropout for instance, is not in it and starts anew")
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    for key, value in state["generators"].items():
        generator = context.generator(key)
        if len(value) == len(generator.get_state()):
            generator.set_state(value.cpu())
        else:
            lost.append(f"the random stream {key} was saved on another kind of device and starts anew")
    return lost


def _link(source: Path, target: Path) -> None:
    """Make ``target`` a hard link to ``source``, atomically, or a copy if the file system has no hard links."""
    temporary = target.with_name(f".{target.name}.link")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        write_bytes(target, source.read_bytes())
        return
    os.replace(temporary, target)
