"""Where altprop runs from, a checkout or an installed package, and how its commands are started. Imports nothing from altprop."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
"""The folder of the package ``altprop``."""
CHECKOUT = PACKAGE.parents[1] if (PACKAGE.parents[1] / "train.py").is_file() else None
"""The project's folder if the package is in ``<folder>/src/altprop``; None if it was installed from a wheel."""
FORK_SERVER = "--fork-server"
"""The first argument of a command that becomes a fork server; the second is the number of its socket."""


def command(name: str) -> str:
    """What a user types to run the command ``name``: ``python train.py`` or ``altprop train``, as the running one was started."""
    return f"altprop {name}" if _as_installed() else f"python {name}.py"


def arguments(name: str) -> list[str]:
    """The program and first arguments of a process that runs the command ``name``."""
    if _as_installed():
        return [sys.executable, "-m", "altprop", name]
    return [sys.executable, str(CHECKOUT / f"{name}.py")]  # type: ignore[operator]


def _as_installed() -> bool:
    return CHECKOUT is None or os.path.basename(sys.argv[0] if sys.argv else "").startswith("altprop")
