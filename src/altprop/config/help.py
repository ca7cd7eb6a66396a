"""The help pages: ``conf/hydra/help/<name>.yaml``, and the text of ``train.py --help``, which lists what the folders hold.

Hydra's own way to the same text takes a second or two, because it lists every group twice for placeholders that we do not use.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from altprop.config.project import CONF

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


def help_page(config_name: str) -> str | None:
    """The help of the entry point with the primary configuration ``config_name``; None where only Hydra can write it."""
    try:
        defaults = OmegaConf.load(CONF / f"{config_name}.yaml").defaults
        choice = next(entry["override hydra/help"] for entry in defaults if "override hydra/help" in entry)
        page = OmegaConf.create({"hydra": {"help": OmegaConf.load(CONF / "hydra" / "help" / f"{choice}.yaml")}})
        template = page.hydra.help.template
    except (OSError, StopIteration, OmegaConfBaseException):
        return None
    if re.search(r"\$\{?[A-Z]", template.replace("$$", "")):
        return None
    return str(template).replace("$$", "$")


def help_text() -> str:
    """The help of ``train.py`` as a ``string.Template`` for Hydra (every ``$`` doubled)."""
    lines = [HEAD, "groups: <group>=<choice>"]
    lines += _listing((group, _choices(group)) for group in (*FACETS, *SETTINGS))
    for group, title in (("experiment", "experiments"), ("sweep", "sweeps")):
        rows = [(folder, _choices(f"{group}/{folder}")) for folder in _folders(group)]
        lines += ["", f"{title}: {group}=<paper>/<name>", *_listing(rows)]
    return "\n".join([*lines, "", FOOT]).rstrip().replace("$", "$$")


def _choices(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def _folders(group: str) -> list[str]:
    return sorted(folder.name for folder in (CONF / group).iterdir() if folder.is_dir())


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
