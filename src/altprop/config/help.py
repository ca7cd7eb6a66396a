"""The text of ``python train.py --help``: one screen, listing what the configuration folders hold."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType

WIDTH = 118
FACETS = ("dataset", "model", "model/units", "algorithm", "algorithm/weights", "algorithm/estimator", "algorithm/loss")
SETTINGS = ("optimizer", "schedule", "trainer", "logger", "cluster", "resources", "debug", "task")

HEAD = """\
altprop: train deep nets with algorithms other than plain backprop

  python train.py                                        an MLP on 5,000 real MNIST digits, in seconds
  python train.py experiment=<paper>/<row> [key=value]   one row of a paper; the same command again resumes
  python train.py -m sweep=<paper>/<table>               a table of a paper; -m also takes lists: -m seed=0,1,2
"""
FOOT = """\
more: python train.py experiment=… --cfg job   every key of a configuration          --info defaults   where it comes from
      python train.py experiment=… task=validate   check it without training        docs/configuration.md   every group
      python evaluate.py run=<directory>   python report.py   python data.py        each with --help
      a key that the configuration lacks: +key=value    tab completion: eval "$(python train.py -sc install=bash)"
"""


def help_text() -> str:
    """The help page as a ``string.Template`` for Hydra (every ``$`` doubled)."""
    loader = GlobalHydra.instance().config_loader()
    lines = [HEAD, "groups: <group>=<choice>"]
    lines += _listing((group, _choices(loader, group)) for group in (*FACETS, *SETTINGS))
    for group, title in (("experiment", "experiments"), ("sweep", "sweeps")):
        lines += ["", f"{title}: {group}=<paper>/<name>"]
        lines += _listing((folder, _choices(loader, f"{group}/{folder}")) for folder in _folders(loader, group))
    return "\n".join([*lines, "", FOOT]).rstrip().replace("$", "$$")


def _choices(loader: ConfigLoader, group: str) -> list[str]:
    return sorted(loader.get_group_options(group, ObjectType.CONFIG))


def _folders(loader: ConfigLoader, group: str) -> list[str]:
    return sorted(loader.list_groups(group))


def _listing(rows: Iterable[tuple[str, list[str]]]) -> list[str]:
    """One line per row, cut to the screen's width; what does not fit is counted."""
    return [_line(name, choices) for name, choices in rows if choices]


def _line(name: str, choices: list[str]) -> str:
    head = f"  {name:<20} "
    line = head + ", ".join(choices)
    if len(line) <= WIDTH:
        return line
    shown = textwrap.shorten(", ".join(choices), WIDTH - len(head) - 14, placeholder="").rstrip(", ")
    return f"{head}{shown}, … {len(choices) - shown.count(',') - 1} more"
