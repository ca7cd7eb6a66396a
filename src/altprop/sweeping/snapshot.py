"""A copy of the code for jobs, so that they run what was submitted even if the code changes.

The copy holds altprop, as a checkout or as the installed package, and every package that adds configurations to it. In all cases
``src`` below the copy is what a job puts first on ``PYTHONPATH``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from altprop.code_state import NOTE, git, note_code_state
from altprop.config.project import module_folders, own_packages
from altprop.program import CHECKOUT, PACKAGE

NEEDED = ("src", "conf", "sweeps")
"""The folders of a checkout that a job reads, in addition to the scripts in it."""
SITE_SETTINGS = "conf/local/*.yaml"
PLUGIN = Path("hydra_plugins", "altprop_sweeps.py")
"""altprop's other file in ``src`` or ``site-packages``."""


def take_snapshot(folder: Path) -> Path:
    """Copy the code into ``folder``, under a hash of its content, so that sweeps of the same code share a copy."""
    files = dict(sorted({**_files_of_altprop(), **_files_of_own_packages()}.items()))
    digest = hashlib.sha256()
    for name, path in files.items():
        digest.update(name.encode() + b"\0")
        digest.update(os.readlink(path).encode() if path.is_symlink() else path.read_bytes())
    copy = folder / digest.hexdigest()[:12]
    if (copy / NOTE).exists():
        return copy
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".copying-"))
    for name, path in files.items():
        target = temporary / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target, follow_symlinks=False)
    note_code_state(PACKAGE, temporary)
    for package in _folders_of_own_packages():
        note_code_state(package, temporary / "src" / package.name)
    temporary.chmod(0o755)
    try:
        temporary.rename(copy)
    except OSError:  # another sweep was faster
        shutil.rmtree(temporary)
    return copy


def _files_of_altprop() -> dict[str, Path]:
    """altprop's files by their path in the copy."""
    if CHECKOUT is None:
        return {**_files_of_package(PACKAGE), f"src/{PLUGIN.as_posix()}": PACKAGE.parent / PLUGIN}
    names = [name for name in _tracked(CHECKOUT) if name.startswith(tuple(f"{folder}/" for folder in NEEDED))]
    others = (*CHECKOUT.glob("*.py"), *CHECKOUT.glob(SITE_SETTINGS), *CHECKOUT.glob("*.toml"))
    names += [str(path.relative_to(CHECKOUT)) for path in others]
    return {name: path for name in names if (path := CHECKOUT / name).is_symlink() or path.is_file()}


def _tracked(checkout: Path) -> list[str]:
    """The files that git tracks or would track, or all files that a job may need if there is no repository."""
    listed = git(checkout, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if listed:
        return [name for name in listed.split("\0") if name]
    below = [path for name in NEEDED for path in (checkout / name).rglob("*") if "__pycache__" not in path.parts]
    return [str(path.relative_to(checkout)) for path in below]


def _files_of_own_packages() -> dict[str, Path]:
    """The files of the packages that add configurations to altprop's, by their path in the copy."""
    files: dict[str, Path] = {}
    for folder in _folders_of_own_packages():
        files |= {name: path for name, path in _files_of_package(folder).items() if name not in files}
    return files


def _folders_of_own_packages() -> list[Path]:
    return [folder for module in sorted({package.module for package in own_packages()}) for folder in module_folders(module)]


def _files_of_package(folder: Path) -> dict[str, Path]:
    """The files of the package in ``folder`` by their path in the copy, without compiled and hidden ones."""
    files = {}
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_file() and "__pycache__" not in parts and not any(part.startswith(".") for part in parts):
            files["/".join(("src", folder.name, *parts))] = path
    return files
