"""Which code this is: commit, branch, differences from it. Asks git, or reads what was noted when a copy was made for jobs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from altprop.files import read_json, write_json

GIT_TIMEOUT = 5.0
MAX_UNTRACKED = 100
NOTE = "code_state.json"
"""File in the root of a copy that was made without its repository."""


def code_state(directory: Path) -> tuple[dict[str, Any] | None, str]:
    """Commit, branch, whether the working tree differs and untracked files of the repository that tracks ``directory``; the diff.

    ``(None, "")`` where git does not track ``directory`` (an installed package) or is missing.
    """
    for folder in directory.parents[:3]:
        noted = read_json(folder / NOTE)
        if isinstance(noted, dict):
            return noted["facts"], noted["diff"]
    if not git(directory, "ls-files", "--", "."):
        return None, ""
    commit = git(directory, "rev-parse", "HEAD").strip() or None
    root = Path(git(directory, "rev-parse", "--show-toplevel").strip())
    diff = git(root, "diff", "--no-color", "--no-ext-diff", "--no-textconv", "HEAD") if commit else ""
    untracked = [name for name in git(root, "ls-files", "-z", "--others", "--exclude-standard").split("\0") if name]
    facts = {
        "commit": commit,
        "branch": git(directory, "branch", "--show-current").strip() or None,
        "dirty": bool(diff or untracked) or commit is None,
        "untracked": untracked[:MAX_UNTRACKED],
    }
    return facts, diff


def note_code_state(directory: Path, copy: Path) -> None:
    """Write the state of ``directory`` into the root of its ``copy``."""
    facts, diff = code_state(directory)
    write_json(copy / NOTE, {"facts": facts, "diff": diff})


def git(directory: Path, *arguments: str) -> str:
    """What ``git`` prints, or nothing where it fails, is missing or takes too long."""
    command = ["git", "-C", os.fspath(directory), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=GIT_TIMEOUT, stdin=subprocess.DEVNULL, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace")
