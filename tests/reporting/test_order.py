"""The order of the folders in ``altprop.reporting``: its own modules, then tables and figures, then the HTML page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_layers import PACKAGE, imported

REPORTING = PACKAGE / "reporting"
ALLOWED = {"": {""}, "tables": {"", "tables"}, "figures": {"", "figures"}, "html": {"", "tables", "figures", "html"}}
"""The folders whose modules a folder may import; the empty name is ``reporting`` itself."""


@pytest.mark.parametrize("path", sorted(REPORTING.rglob("*.py")), ids=lambda path: str(path.relative_to(REPORTING)))
def test_folders_import_only_lower_folders(path: Path) -> None:
    folder = "" if path.parent == REPORTING else path.parent.name
    for name in imported(path):
        if name.startswith("altprop.reporting."):
            part = name.split(".")[2]
            assert (part if part in ALLOWED else "") in ALLOWED[folder], f"{path} imports {name}"
