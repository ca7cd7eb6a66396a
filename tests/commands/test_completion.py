"""Tab completion: groups, keys, values, experiments, sweeps, runs, choices of installed packages, and no torch."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from altprop import names
from altprop.commands import completion
from altprop.commands.completion import completions
from altprop.config import project

MODES = ["batchwise_random_sign", "fixed_random_sign", "random", "uniform_sign"]
NUDGING = ["five_phase", "one_sided", "random_sign", "symmetric"]


def train(words: str) -> list[str]:
    return completions("train", f"python train.py {words}")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("experiment=ftp", ["experiment=ftprop/"]),
        ("-m sweep=field/fash", ["sweep=field/fashion_mnist"]),
        ("-m experiment=dgl/dni_bp,dgl/dni_dg", ["experiment=dgl/dni_bp,dgl/dni_dgl"]),
        ("trainer.precision=", [f"trainer.precision={word}" for word in ("bf16", "fp16", "fp32", "fp64", "tf32")]),
        ("trainer.channels_last=", [f"trainer.channels_last={word}" for word in ("auto", "false", "true")]),
        ("resu", ["resume="]),
        ("hy", ["hydra."]),
        ("-m sweep=w", []),
        ("schedule.sch", ["schedule.scheduler="]),
        ("model._", ["model._partial_=", "model._target_="]),
        ("resume=", ["resume=false", "resume=true"]),
        ("algorithm=feedback_alignment algorithm.mode=", [f"algorithm.mode={word}" for word in MODES]),
        ("algorithm=equilibrium_propagation algorithm.nudging=", [f"algorithm.nudging={word}" for word in NUDGING]),
        ("dataset.validation.how=r", ["dataset.validation.how=random"]),
        ("model.batch_norm=", ["model.batch_norm=false", "model.batch_norm=true"]),
        ("optimizer=sgd optimizer.nesterov=", ["optimizer.nesterov=false", "optimizer.nesterov=true"]),
        ("trainer.duration=", ["trainer.duration=10ep"]),
        ("algorithm/weights=n_of", ["algorithm/weights=n_of_m"]),
        ("algorithm/weights/", [f"algorithm/weights/{group}=" for group in ("grow", "prune", "redistribute")]),
        ("--multi", ["--multirun"]),
        ("model=mlpp", []),
        ("model=nothing trainer.prec", []),
    ],
)  # fmt: skip
def test_what_may_follow(typed: str, expected: list[str]) -> None:
    assert train(typed) == sorted(expected)


def test_every_paper_and_every_row_is_offered() -> None:
    papers = sorted(path.name for path in (project.CONF / "experiment").iterdir())
    assert train("experiment=") == [f"experiment={paper}/" for paper in papers]
    rows = sorted(path.stem for path in (project.CONF / "experiment" / "dgl").glob("*.yaml"))
    assert train("experiment=dgl/") == [f"experiment=dgl/{row}" for row in rows]


def test_runs_are_offered_by_path_name_and_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = tmp_path / "outputs"
    for run in ("paper/row/0123abcd", "paper/other/4567abcd"):
        (outputs / run).mkdir(parents=True)
        (outputs / run / "config.yaml").touch()
    (outputs / "report").mkdir()
    (outputs / "latest").symlink_to("paper/row/0123abcd")
    monkeypatch.chdir(tmp_path)
    start = "paths.outputs=outputs run"
    assert train(f"{start}=") == ["run=latest", "run=outputs/", "run=paper/"]
    assert train(f"{start}=outputs/p") == ["run=outputs/paper/"]
    assert train(f"{start}=outputs/paper/row/") == ["run=outputs/paper/row/0123abcd"]
    assert train(f"{start}=paper/") == ["run=paper/other/", "run=paper/row/"]
    assert train(f"{start}=paper/row/01") == ["run=paper/row/0123abcd"]
    assert train(f"{start}=45") == ["run=4567abcd"]
    assert train(f"{start}={outputs}/paper/o") == [f"run={outputs}/paper/other/"]
    assert completions("evaluate", f"altprop {start}=45") == ["run=4567abcd"]


@pytest.mark.parametrize(
    ("command", "typed", "expected"),
    [
        ("evaluate", "split=", ["split=test", "split=validation", "split=train"]),
        ("evaluate", "split=t", ["split=test", "split=train"]),
        ("evaluate", "checkpoint=", ["checkpoint=auto", "checkpoint=last", "checkpoint=best"]),
        ("evaluate", "figures=", ["figures=false", "figures=true"]),
        ("report", "compare=s", ["compare=selected"]),
        ("status", "action=c", ["action=cancel", "action=clean"]),
        ("data", "dataset=cifar10", ["dataset=cifar10", "dataset=cifar100", "dataset=cifar10_jpeg"]),
    ],
)
def test_the_other_commands(command: str, typed: str, expected: list[str]) -> None:
    assert completions(command, f"altprop {typed}") == sorted(expected)


def test_the_words_of_the_commands_are_those_that_they_check() -> None:
    from altprop.commands import data, report, status
    from altprop.training.settings import SELECTIONS

    words = completion.WORDS
    assert list(words["report"]["formats"]) == ["all", *report.FORMATS]
    assert sorted(words["status"]["action"]) == sorted(status.VERBS)
    assert sorted(words["data"]["action"]) == sorted(data.ACTIONS)
    assert sorted(words["train"]["trainer.select_on"]) == sorted(SELECTIONS)


def test_an_installed_package_is_offered_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "mypackage"
    for name, text in (
        ("__init__.py", "raise RuntimeError('it was imported')\n"),
        ("words.py", "from enum import Enum\nfrom typing import Literal\nclass Kind(Enum):\n    small = 1\n    large = 2\n"),
        ("base.py", "from .words import *\nfrom .words import Kind\nclass Base:\n    def __init__(self, *, kind: Kind): ...\n"),
        (
            "mine.py",
            "from mypackage.base import Base\nclass Mine(Base):\n    def __init__(self, fast: 'bool | None', **rest): ...\n",
        ),
        ("conf/algorithm/mine.yaml", "_target_: mypackage.mine.Mine\nkind: small\nfast: null\n"),
        ("conf/experiment/mypaper/row.yaml", "# @package _global_\ndefaults: [override /algorithm: mine]\n"),
        ("conf/sweep/mypaper/table.yaml", "# @package _global_\n"),
    ):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("mine", "mypackage.conf", names.ENTRY_POINTS)
    monkeypatch.setattr(names, "entry_points", lambda group: [point])
    project.own_packages.cache_clear()
    try:
        assert train("algorithm=mi") == ["algorithm=mine"]
        assert train("algorithm=mine algorithm.kind=") == ["algorithm.kind=large", "algorithm.kind=small"]
        assert train("algorithm=mine algorithm.fast=") == [f"algorithm.fast={word}" for word in ("false", "null", "true")]
        assert train("experiment=my") == ["experiment=mypaper/"]
        assert train("-m sweep=mypaper/") == ["sweep=mypaper/table"]
    finally:
        project.own_packages.cache_clear()


def test_a_folder_of_the_command_line_counts(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tiny.yaml").write_text("_target_: altprop.models.MLP\n")
    assert train(f"--config-dir {tmp_path} model=ti") == ["model=tiny"]
    assert train(f"hydra.searchpath=[{tmp_path}] model=ti") == ["model=tiny"]


def test_the_shell_gets_its_answer_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; sys.argv = ['train.py', '-sc', 'query=bash']\nfrom altprop.commands.main import main\nmain('train')\n"
    code += "assert not {'torch', 'pydantic', 'numpy'} & sys.modules.keys()"
    monkeypatch.setenv("COMP_LINE", "python train.py algorithm=equilibrium_propagation algorithm.nudging=s")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("algorithm.nudging=symmetric", "")
