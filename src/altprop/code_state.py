"""The version of the running code: commit, branch and uncommitted changes, from git or from a note in a copy of the code.

Copies are made for jobs (``sweeping/snapshot.py``) and by building a wheel (``hatch_build.py``).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from altprop.files import read_json, write_json

GIT_TIMEOUT = 5.0
MAX_UNTRACKED = 100
NOTE = "code_state.json"
"""File with the code state in a copy that has no repository: in its root, or in the package that is installed."""


def code_state(directory: Path) -> tuple[dict[str, Any] | None, str]:
    """Return facts about the repository that tracks ``directory``, and the diff of its working tree to the commit.

    The facts are the commit, the branch, whether the working tree is dirty, and untracked files. Returns ``(None, "")`` if git
    does not track ``directory`` (an installed package) or is not installed.
    """
    for folder in (directory, *directory.parents[:3]):
        note = read_json(folder / NOTE)
        if isinstance(note, dict):
            return note["facts"], note["diff"]
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
    """Write the code state of ``directory`` to the root of its ``copy``."""
    facts, diff = code_state(directory)
    write_json(copy / NOTE, {"facts": facts, "diff": diff})


def git(directory: Path, *arguments: str) -> str:
    """Return the output of a git command, or an empty string if it fails, times out or git is not installed."""
    command = ["git", "-C", os.fspath(directory), *arguments]
    try:
        result = subprocess.run(command, capture_output=True, timeout=GIT_TIMEOUT, stdin=subprocess.DEVNULL, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.decode(errors="replace")
