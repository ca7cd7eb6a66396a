"""The pages of ``--help``. Hydra's own help takes a second or two, because it lists every group twice."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.utils import get_args

from altprop.config.project import CONF, config_folders, module_folders
from altprop.program import command

WIDTH = 118
MAX_LINES = 40
"""What fits on one screen."""
TWO_LINES = ("algorithm", "dataset", "algorithm/weights")
"""Groups whose choices get two lines if there is room, most important first. Choices that do not fit are counted."""
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
SMALL_GROUPS = ("optimizer", "metrics", "logger", "debug", "cluster", "resources", "task")

_TIED = "\N{NO-BREAK SPACE}"
HEAD = """\
altprop: train deep nets with algorithms other than plain backprop

  python train.py                                        an MLP on 5,000 real MNIST digits, in seconds
  python train.py experiment=<paper>/<row> [key=value]   one row of a paper; the same command again resumes
  python train.py -m sweep=<paper>/<table>               a table of a paper; -m also takes lists: -m seed=0,1,2
"""
FOOT = """\
more: python train.py … --cfg job         every key of a configuration      --info defaults   where it comes from
      python train.py … task=validate     check it without training         +key=value        add a key that it lacks
      python evaluate.py, report.py, data.py --help          completion: eval "$(python train.py -sc install=bash)"
      own files: --config-dir <folder>, hydra.searchpath=[<folder>], an installed package     docs/own_package.md
"""
ALTPROP = """\
altprop: train deep nets with algorithms other than plain backprop

  altprop train       train a network; sweep with -m         altprop train --help lists what there is
  altprop evaluate    evaluate a trained network             altprop evaluate run=outputs/latest
  altprop status      the status of each run of a sweep      altprop status
  altprop report      tables and figures from many runs      altprop report runs='ftprop/*'
  altprop data        list, fetch and show data sets         altprop data action=fetch dataset=cifar10

Each command has a page: altprop <command> --help
Versions: altprop --version     Tab completion: eval "$(altprop -sc install=bash)"
"""
"""The page of ``altprop --help``."""


PAGES = {
    "data": """\
List, fetch, show and check data sets.

  python data.py                                       the data sets, and the command for each that is missing
  python data.py action=fetch dataset=cifar10          download and verify it once; -m dataset=mnist,svhn for several
  python data.py action=sheet dataset=shapes           a PNG of training images, plain and augmented
  python data.py action=check dataset=image_folder     unusable files, duplicates, counts of classes and sizes
  python data.py action=unpack_imagenet archives=<folder> resize=256     the official archives, into class folders

action     list | fetch | sheet | check | unpack_imagenet
dataset    fetch: mnist | fashion_mnist | cifar10 | cifar100 | svhn; sheet, check: any choice of conf/dataset
file       sheet: file for the PNG
archives   unpack_imagenet: folder with ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz
resize     unpack_imagenet: short side in pixels; null keeps the images as they are
folder     unpack_imagenet: destination below paths.data; default: imagenet
workers    check: threads, unpack_imagenet: processes; null: one per core, at most 16

Data sets are stored below paths.data. Every command can be interrupted and run again.""",
    "evaluate": """\
Evaluate a trained network and store the result in the directory of its run.

  python evaluate.py run=outputs/latest                          its test split
  python evaluate.py run=outputs/<name>/<key> split=validation   or train (without augmentation)
  python evaluate.py run=outputs/<name>/<key> dataset=mnist      another data set of the same shape

run          directory of the run
trust_run    true: the run's configuration may name any code, which is executed; see docs/trust.md
split        test | validation | train
checkpoint   auto (best if the run has one, otherwise last) | last | best
dataset      any choice of conf/dataset; default: the run's own
metrics      metrics besides those of the run: any choice of conf/metrics
device       auto | cpu | cuda | cuda:N | mps
figures      confusion matrix and misclassified images, below figures/ of the run

The result is printed and appended to evaluations.jsonl in the run's directory.""",
    "report": """\
Compare means over seeds with the papers' numbers, in a table and in files.

  python report.py                                  every run below paths.outputs
  python report.py runs='ftprop/*'                  the runs of one paper; also a list: runs='[ftprop/*,baseline/*]'
  python report.py group=ftprop/cifar10             the runs of a sweep
  python report.py metric=train/loss formats=csv    another metric, one file

runs     names of runs; * matches anything
group    only runs of this group; a sweep sets its path as the group
metric   any metric in metrics.jsonl; default: the paper's metric, otherwise test/accuracy
compare  last (epoch) | selected (by the validation split) | best (epoch): the value to compare with the paper's
formats  all, or some of markdown, csv, latex, html (one page with sortable tables and curves; needs plotly)
figures  true: also draw the papers' figures from these runs
columns  columns to show, in this order and in every format: columns=[experiment,seeds,last,paper]; default: all
to       folder for the files; default: <paths.outputs>/report""",
    "status": """\
Print the status of each run of a sweep, cancel or retry runs, and follow their logs.

  python status.py                                   the newest sweep; without any sweep, the runs that are there
  python status.py group=ftprop/cifar10              the newest sweep of this group
  python status.py folder=<folder> only=failed        a specific sweep; only the runs that failed
  python status.py action=watch                      the table again every 5 seconds until all runs have ended
  python status.py action=logs run=3                 follow the log of run 3
  python status.py action=cancel                     cancel the whole sweep; with run=3 or run=[3,5], only these runs
  python status.py action=retry                      run again what has failed
  python status.py action=clean                      what old sweeps, copies of the code and temporary files take up

action  show | watch | logs | cancel | retry | clean
group   group of the sweep
folder  folder of the sweep below <paths.outputs>/.sweeps
run     number of a run (first column of the table), or a list; for logs, cancel and retry
only    done | running | waiting | stuck | preempted | interrupted | failed | unknown
every   seconds between two tables of action=watch
days    age from which action=clean calls something old
delete  true: action=clean removes what it lists
table   true: also write status.txt and the report into the sweep's folder""",
}
"""The help pages of the other commands."""


def help_page(config_name: str, extra: Sequence[Path] = ()) -> str:
    """The help page of the command with the primary configuration ``config_name``.

    ``extra`` are folders whose files it lists in addition to altprop's own and those of installed packages.
    """
    page = PAGES[config_name] if config_name in PAGES else train_help([*extra, *config_folders()])
    return page if command("train").startswith("python") else _as_installed(page)


def _as_installed(page: str) -> str:
    """``page`` with ``altprop train`` for ``python train.py``; what is right of a command stays in its column."""
    page = re.sub(r"python evaluate\.py, report\.py, data\.py", "altprop evaluate, altprop report, altprop data", page)
    page = re.sub(r"python (\w+)\.py([^\n]*?)(?= {2}|$)", r"altprop \1\2  ", page, flags=re.MULTILINE)
    return "\n".join(line.rstrip() for line in page.splitlines())


def extra_folders(arguments: Sequence[str]) -> list[Path]:
    """The folders that ``--config-dir`` and ``hydra.searchpath`` in the command line ``arguments`` name."""
    parsed = get_args(arguments)
    folders = [] if parsed.config_dir is None else [Path(parsed.config_dir)]
    for override in parsed.overrides:
        name, _, value = override.partition("=")
        if name.lstrip("+~") == "hydra.searchpath":
            folders += [folder for place in value.strip("[]'\"").split(",") for folder in _search_folders(place.strip(" '\""))]
    return folders


def _search_folders(place: str) -> list[Path]:
    """The folders that one entry of Hydra's search path names: a path, ``file://<path>`` or ``pkg://<module>``."""
    scheme, separator, path = place.rpartition("://")
    if not separator or scheme == "file":
        return [Path(os.path.expanduser(path))]
    module, *parts = path.split(".")
    if scheme != "pkg":
        return []
    return [folder.joinpath(*parts) for folder in module_folders(module)] or [Path(module, *parts)]


def train_help(folders: Sequence[Path]) -> str:
    """The help page of ``train.py``, which lists the files in the configuration ``folders`` on at most :data:`MAX_LINES` lines.

    It may be longer if folders besides altprop's own have many experiments.
    """
    own_first = [*(folder for folder in folders if folder != CONF), CONF]  # a long list is cut at its end
    for count in range(len(TWO_LINES), -1, -1):
        page = _train_help(own_first, TWO_LINES[:count])
        if page.count("\n") < MAX_LINES:
            break
    return page


def _train_help(folders: Sequence[Path], two_lines: Sequence[str]) -> str:
    lines = [HEAD, "groups: <group>=<choice>"]
    for group in GROUPS:
        lines += _row(group, _choices(folders, group), 2 if group in two_lines else 1)
    small = "   ".join(f"{group}: {', '.join(_choices(folders, group))}".replace(" ", _TIED) for group in SMALL_GROUPS)
    lines += [line.replace(_TIED, " ") for line in textwrap.wrap(small, WIDTH, initial_indent="  ", subsequent_indent="  ")]
    for group, title in (("experiment", "experiments"), ("sweep", "sweeps")):
        lines.append(f"{title}: {group}=<paper>/<name>")
        for name in _subfolders(folders, group):
            lines += _row(name or "(no folder)", _choices(folders, f"{group}/{name}".rstrip("/")), 1)
    return "\n".join([*lines, "", FOOT]).rstrip()


def _choices(folders: Sequence[Path], group: str) -> list[str]:
    names = [file.stem for folder in folders for file in sorted((folder / group).glob("*.yaml"))]
    return list(dict.fromkeys(names))


def _subfolders(folders: Sequence[Path], group: str) -> list[str]:
    """The folders below ``group``, preceded by an empty name if there are files directly in it."""
    below = [path for folder in folders if (folder / group).is_dir() for path in (folder / group).iterdir()]
    names = sorted({path.name for path in below if path.is_dir() and path.name not in ("wandb", "__pycache__")})
    return [*([""] if any(path.suffix == ".yaml" for path in below) else []), *names]


def _row(name: str, choices: list[str], max_lines: int) -> list[str]:
    """``name`` and its choices on at most ``max_lines`` lines. Choices that do not fit are counted."""
    for count in range(len(choices), 0, -1):
        left_out = len(choices) - count
        text = ", ".join(choices[:count]) + (f", … {left_out} more" if left_out else "")
        lines = textwrap.wrap(text, WIDTH, initial_indent=f"  {name:<20} ", subsequent_indent=" " * 23, break_on_hyphens=False)
        if len(lines) <= max_lines:
            return lines
    return []
