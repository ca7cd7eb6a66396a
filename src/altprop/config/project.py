"""Where the project lies: its configuration is found from any current directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

ROOT = Path(__file__).resolve().parents[3]
"""The project's folder, which holds ``conf`` and ``sweeps``; altprop is installed editable (``pip install -e .``)."""
CONF = ROOT / "conf"


def register_resolvers() -> None:
    """``${project_root:}`` is :data:`ROOT`, ``${help_text:}`` the text of ``--help``, ``${run_of:…}`` another run's directory.

    ``${lookup:<number>,{<number>: <value>, …}}`` is the value of the equal number, or null: for a row's settings and published
    results that follow from a number that is swept over. ``${given:<value>,…}`` is the list of the values that are not null.
    """
    OmegaConf.register_new_resolver("project_root", lambda: str(ROOT), replace=True)
    OmegaConf.register_new_resolver("help_text", _help_text, replace=True)
    OmegaConf.register_new_resolver("run_of", _run_of, replace=True)
    OmegaConf.register_new_resolver("lookup", _lookup, replace=True)
    OmegaConf.register_new_resolver("given", _given, replace=True)


def _run_of(experiment: str, *overrides: str, _root_: DictConfig) -> str:
    from altprop.config.chain import run_of

    return run_of(experiment, *overrides, _root_=_root_)


def _lookup(number: float, table: Mapping[float, object]) -> object:
    return next((value for key, value in table.items() if float(key) == float(number)), None)


def _given(*values: object) -> list[object]:
    return [value for value in values if value is not None]


def _help_text() -> str:
    from altprop.config.help import help_text

    return help_text()
