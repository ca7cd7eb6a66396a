"""A copy of the code for jobs, so that they run what was submitted even if the checkout changes."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from altprop.code_state import NOTE, git, note_code_state
from altprop.config.project import ROOT

NEEDED = ("src", "conf", "sweeps")
"""The folders that a job reads, in addition to the scripts in the project's folder."""
SITE_SETTINGS = "conf/local/*.yaml"


def take_snapshot(folder: Path) -> Path:
    """Copy the project into ``folder``, under a hash of its content, so that sweeps of the same code share a copy."""
    files = _files()
    digest = hashlib.sha256()
    for name in files:
        path = ROOT / name
        digest.update(name.encode() + b"\0")
        digest.update(os.readlink(path).encode() if path.is_symlink() else path.read_bytes())
    copy = folder / digest.hexdigest()[:12]
    if (copy / NOTE).exists():
        return copy
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".copying-"))
    for name in files:
        target = temporary / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    note_code_state(ROOT / "src" / "altprop", temporary)
    temporary.chmod(0o755)
    try:
        temporary.rename(copy)
    except OSError:  # another sweep was faster
        shutil.rmtree(temporary)
    return copy


def _files() -> list[str]:
    """The project's files by relative path: those that git tracks or would track, and the site settings, which it ignores."""
    tracked = [name for name in git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0") if name]
    if not tracked:
        below = [path for name in NEEDED for path in (ROOT / name).rglob("*") if "__pycache__" not in path.parts]
        tracked = [str(path.relative_to(ROOT)) for path in below]
    names = [name for name in tracked if name.startswith(tuple(f"{folder}/" for folder in NEEDED))]
    names += [str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.py"), *ROOT.glob(SITE_SETTINGS), *ROOT.glob("*.toml"))]
    return sorted({name for name in names if (ROOT / name).is_symlink() or (ROOT / name).is_file()})
