"""Checkpoints: a dict of tensors and plain values in one file, written atomically and loaded without executing any code.

The dict holds ``format`` (version), ``key`` and ``name`` (of the run), ``step``, ``config`` (YAML text), ``algorithm``
(:meth:`Algorithm.state_dict`), ``progress`` (:class:`altprop.training.progress.Progress`), ``random`` (states of all generators)
and ``names`` (of the files that are links to this checkpoint, besides ``last.pt``).

A save is one transaction, and it happens when ``last.pt`` is renamed into place. A process that is killed before leaves the
checkpoints as they were. One that is killed after may leave links missing: ``names`` says which, :meth:`CheckpointStore.repair`
makes them, and :func:`altprop.checkpoint_files.find_checkpoint` finds the right file before they are made.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from altprop.algorithms.context import Context
from altprop.checkpoint_files import BEST, INITIAL, LAST, names_of
from altprop.files import link_atomically, temporary_path, write_atomically
from altprop.tensor_file import BadCheckpoint, read_tensor_file

FORMAT = 1

PARTS: dict[str, type] = {"step": int, "algorithm": dict, "progress": dict, "random": dict}
"""What a checkpoint must contain besides its format and key."""


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

        With ``best`` the same file is also linked as ``best.pt``, with ``keep_as`` under that name. Raises ``OSError`` if the
        disk is full; the earlier files are then still there.
        """
        names = [BEST] * best + ([keep_as] if keep_as is not None else [])
        for newer, older in reversed(list(pairwise(self.recent))):
            if (self.folder / newer).exists():
                link_atomically(self.folder / newer, self.folder / older)
        self.write(LAST, {**state, "names": names})
        for name in names:
            link_atomically(self.folder / LAST, self.folder / name)

    def repair(self, newest: Checkpoint) -> None:
        """Complete the save of ``newest`` if it was cut off: its links, and ``last.pt`` if that file is older or damaged."""
        for name in (LAST, *names_of(newest.state)):
            link_atomically(newest.path, self.folder / name)

    def write(self, name: str, state: Mapping[str, Any]) -> None:
        """Write ``state`` to the file ``name``, atomically."""
        write_atomically(self.folder / name, lambda stream: torch.save(dict(state), stream))

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest complete checkpoint of this run, and one line for each file that was skipped."""
        complaints: list[str] = []
        newest: Checkpoint | None = None
        for checkpoint in self._complete(complaints):
            if newest is None or checkpoint.state["step"] > newest.state["step"]:
                newest = checkpoint
        return newest, complaints

    def is_empty(self) -> bool:
        """Whether there is no complete checkpoint of this run. Files are read until one is found."""
        return next(self._complete([]), None) is None

    def _complete(self, complaints: list[str]) -> Iterator[Checkpoint]:
        """Every complete checkpoint of this run, ``last.pt`` first. Appends a line to ``complaints`` for each other file."""
        for path in sorted(self.folder.glob("*.pt"), key=lambda path: (path.name != LAST, path.name)):
            if path.name == INITIAL:
                continue
            try:
                state = read_checkpoint(path, self.key)
            except BadCheckpoint as error:
                complaints.append(str(error))
            else:
                yield Checkpoint(path, state)

    def clear(self) -> None:
        """Remove all checkpoints at once, for a run that starts over: a process that is killed leaves all of them or none."""
        if self.folder.is_symlink():
            for path in self.folder.glob("*.pt"):
                path.unlink()
        elif self.folder.exists():
            discarded = temporary_path(self.folder)
            os.replace(self.folder, discarded)
            shutil.rmtree(discarded, ignore_errors=True)  # the next start removes what is left


def read_checkpoint(path: Path, key: str | None = None, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Load and check the checkpoint in ``path``. With ``key``, refuse a checkpoint of another run.

    Only tensors and plain values are accepted, so no code in the file is executed. Raises :class:`BadCheckpoint`.
    """
    state = read_tensor_file(path, device)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise BadCheckpoint(f"{path}: not a checkpoint of altprop (format {FORMAT})")
    if key is not None and state.get("key") != key:
        raise BadCheckpoint(f"{path}: belongs to run {state.get('key')}, not to {key}")
    if wrong := [name for name, kind in PARTS.items() if not isinstance(state.get(name), kind)]:
        raise BadCheckpoint(f"{path}: incomplete (it has no valid {', '.join(wrong)})")
    if state["progress"].get("step", state["step"]) != state["step"]:
        raise BadCheckpoint(f"{path}: of step {state['step']}, but its progress is of step {state['progress']['step']}")
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
