"""The help pages: ``conf/hydra/help/<name>.yaml``, and the text of ``train.py --help``, which lists what the folders hold.

Hydra's own way to the same text takes a second or two, because it lists every group twice for placeholders that we do not use.
"""

from __future__ import annotations

import re
import textwrap

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from altprop.config.project import CONF

WIDTH = 118
TWO_LINES = ("dataset", "algorithm", "algorithm/weights")
"""Groups whose choices are worth two lines; of the others, what does not fit on one is counted."""
GROUPS = (
    "dataset",
    "model",
    "model/units",
    "algorithm",
    "algorithm/weights",
    "algorithm/estimator",
    "algorithm/loss",
    "schedule",
)
SMALL_GROUPS = ("optimizer", "logger", "debug", "cluster", "resources", "task")

_TIED = "\N{NO-BREAK SPACE}"
HEAD = """\
altprop: train deep nets with algorithms other than plain backprop

  python train.py                                        an MLP on 5,000 real MNIST digits, in seconds
  python train.py experiment=<paper>/<row> [key=value]   one row of a paper; the same command again resumes
  python train.py -m sweep=<paper>/<table>               a table of a paper; -m also takes lists: -m seed=0,1,2
"""
FOOT = """\
more: python train.py … --cfg job         every key of a configuration      --info defaults   where it comes from
      python train.py … task=validate     check it without training         docs/configuration.md   all of this
      python evaluate.py, report.py, data.py --help          all names: ls conf/<group>, ls conf/experiment/<paper>
      a key that the configuration lacks: +key=value         completion: eval "$(python train.py -sc install=bash)"
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
    for group in GROUPS:
        lines += _row(group, _choices(group), 2 if group in TWO_LINES else 1)
    small = "   ".join(f"{group}: {', '.join(_choices(group))}".replace(" ", _TIED) for group in SMALL_GROUPS)
    lines += [line.replace(_TIED, " ") for line in textwrap.wrap(small, WIDTH, initial_indent="  ", subsequent_indent="  ")]
    for group, title in (("experiment", "experiments"), ("sweep", "sweeps")):
        lines.append(f"{title}: {group}=<paper>/<name>")
        for folder in _folders(group):
            lines += _row(folder, _choices(f"{group}/{folder}"), 1)
    return "\n".join([*lines, "", FOOT]).rstrip().replace("$", "$$")


def _choices(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def _folders(group: str) -> list[str]:
    return sorted(folder.name for folder in (CONF / group).iterdir() if folder.is_dir() and folder.name != "wandb")


def _row(name: str, choices: list[str], max_lines: int) -> list[str]:
    """``name`` and its choices on at most ``max_lines`` lines; those that do not fit are counted."""
    for count in range(len(choices), 0, -1):
        left_out = len(choices) - count
        text = ", ".join(choices[:count]) + (f", … {left_out} more" if left_out else "")
        lines = textwrap.wrap(text, WIDTH, initial_indent=f"  {name:<20} ", subsequent_indent=" " * 23, break_on_hyphens=False)
        if len(lines) <= max_lines:
            return lines
    return []
