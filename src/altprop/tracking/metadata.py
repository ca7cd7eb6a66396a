"""``meta.json``, which describes the code, software and hardware of a run. It does not identify the user or the machine."""

from __future__ import annotations

import getpass
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import altprop
from altprop.code_identity import code_identity
from altprop.code_state import code_state
from altprop.files import read_json, write_json, write_text

PACKAGES = ("torch", "torchvision", "numpy", "hydra-core", "omegaconf")
DIFF_NAME = "code.diff"


def write_metadata(directory: Path, device: torch.device, config: Mapping[str, Any] | None = None) -> Path:
    """Write ``meta.json`` to ``directory``, and ``code.diff`` next to it if there are uncommitted changes.

    The file describes the latest start of the run. ``sessions`` lists every start with its code and number of threads, oldest
    first, which shows whether a run was resumed with different code. ``config`` is the run's resolved configuration, which
    names the packages whose code is recorded (:mod:`altprop.code_identity`). Works without git, a GPU or optional packages.
    Returns the path of the file.
    """
    path = directory / "meta.json"
    code, diff = code_state(Path(altprop.__file__).resolve().parent)
    previous = read_json(path)
    sessions = previous.get("sessions") if isinstance(previous, dict) else None
    sessions = sessions if isinstance(sessions, list) else []
    started = datetime.now(UTC).isoformat(timespec="seconds")
    identity = code_identity(config or {}, code)
    session = {
        "started": started,
        "commit": code and code["commit"],
        "dirty": code and code["dirty"],
        "code": {package: entry["content"] for package, entry in identity.items()},
        "threads": torch.get_num_threads(),
    }
    meta = {
        "started": started,
        "command": command_line(),
        "git": code,
        "code": identity,
        **environment(device),
        "sessions": [*sessions, session],
    }
    if diff:
        write_text(directory / DIFF_NAME, diff)
    else:
        (directory / DIFF_NAME).unlink(missing_ok=True)
    write_json(path, meta)
    return path


def environment(device: torch.device) -> dict[str, Any]:
    """Return versions, processor, GPUs and threads."""
    versions = {"python": platform.python_version(), "altprop": altprop.__version__}
    return {
        "versions": {**versions, **{name: version(name) for name in PACKAGES}},
        "platform": platform.platform(),
        "cpu": {"model": cpu_model(), "cores": os.cpu_count(), "usable_cores": usable_cores()},
        "device": str(device),
        "gpus": gpus() if device.type == "cuda" else [],
        "cuda": torch.version.cuda,
        "driver": driver_version() if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
    }


def version(package: str) -> str | None:
    """Return the installed version of ``package``, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpu_model() -> str:
    """Return the processor's model name; its architecture if the system does not report a name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def usable_cores() -> int | None:
    """Return the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def gpus() -> list[str]:
    """Return the names of the GPUs that this process sees."""
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def driver_version() -> str | None:
    """Return the version of the NVIDIA driver, or None if the system does not report it."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        return None
    match = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
    return match.group() if match else None


def command_line(arguments: Iterable[str] | None = None) -> list[str]:
    """Return the command of this process without the script's path, user name, host name and home directory."""
    first, *rest = sys.argv if arguments is None else arguments
    return [os.path.basename(first), *(anonymous(argument) for argument in rest)]


def anonymous(text: str) -> str:
    """Replace the home directory in ``text`` by ``~``, and user and host names in paths by ``$USER`` and ``$HOST``."""
    home = os.path.expanduser("~")
    if len(home) > 1:
        text = re.sub(rf"{re.escape(home)}(?=/|$)", "~", text)
    for name, placeholder in ((user_name(), "$USER"), (platform.node(), "$HOST")):
        if name:
            text = re.sub(rf"(?<=/){re.escape(name)}(?=/|$)", placeholder, text)
    return text


def user_name() -> str:
    """Return the current user's name, or an empty string if the system does not know it."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""
