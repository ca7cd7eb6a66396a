"""The folders of the project, so that commands work from any current directory."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
"""The folder with ``conf`` and ``sweeps``. It exists because altprop is installed editable (``pip install -e .``)."""
CONF = ROOT / "conf"
