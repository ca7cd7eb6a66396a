"""Build hook: a wheel or sdist has no repository, so the commit that it was built from is stored in it (``code_state.json``)."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PLACES = {"wheel": "altprop", "sdist": "src/altprop"}


class CodeState(BuildHookInterface):  # type: ignore[type-arg]
    """Adds ``code_state.json`` to what is built, unless it is an editable install, which asks git."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        sys.path.insert(0, str(Path(self.root, "src")))
        from altprop.code_state import NOTE, note_code_state

        package = Path(self.root, "src", "altprop")
        if (package / NOTE).exists():  # built from an sdist, which has it already
            return
        folder = Path(tempfile.mkdtemp())
        note_code_state(package, folder)
        build_data["force_include"][str(folder / NOTE)] = f"{PLACES[self.target_name]}/{NOTE}"
