"""The notebook of the documentation runs, in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXECUTE = """\
import sys
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=240, coalesce_streams=True).execute()
nbformat.write(notebook, sys.stdout)
"""


def test_the_notebook_of_the_library_runs(tmp_path: Path) -> None:
    import nbformat

    stored = ROOT / "docs" / "library.ipynb"
    environment = {**os.environ, "ALTPROP_OUTPUTS": str(tmp_path / "outputs"), "IPYTHONDIR": str(tmp_path / "ipython")}
    command = [sys.executable, "-c", EXECUTE, str(stored)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    executed, shown = nbformat.reads(done.stdout, as_version=4), nbformat.read(stored, as_version=4)
    printed = ["".join(output.get("text", "") for output in cell.get("outputs", ())) for cell in executed.cells]
    [training] = [text for cell, text in zip(executed.cells, printed) if cell.source.startswith("run = altprop.train(")]
    assert "test %" in training
    assert "\r" not in training
    assert [cell.source for cell in shown.cells if cell.cell_type == "code" and not cell.outputs and "print" in cell.source] == []
