"""Where the project is: its configuration is found from any current directory."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
"""The project's folder, which holds ``conf`` and ``sweeps``; altprop is installed editable (``pip install -e .``)."""
CONF = ROOT / "conf"
