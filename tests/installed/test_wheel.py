"""altprop as an installed package, used from an empty folder: commands, sweeps, snapshots and a package that builds on it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.installed.conftest import ROOT, Call

pytestmark = pytest.mark.xdist_group("installed")
PROBE = """\
import sys
import altprop
assert not {"torch", "hydra", "numpy"} & sys.modules.keys()
from pathlib import Path
from altprop.config.project import CONF, home
from altprop.program import CHECKOUT
assert CHECKOUT is None and home() == Path.cwd()
assert (CONF / "train.yaml").is_file() and (CONF / "sweep/quick/search.yaml").is_file()
assert not list((CONF / "local").glob("*.yaml"))
from hydra import compose, initialize_config_module
with initialize_config_module("altprop.conf", version_base="1.3"):
    config = compose("train", ["experiment=mypaper/row"])
assert config.paths.outputs == str(Path.cwd() / "outputs")
assert config.model._target_ == "mypackage.networks.Net"
try:
    altprop.compose("model=mien")
except altprop.ConfigError as error:
    assert str(error).endswith("try: model=mine")
else:
    raise AssertionError("model=mien is a choice")
print(altprop.__file__)
"""


def test_the_wheel_has_the_configurations(call: Call, environment: Path) -> None:
    assert Path(call("python", "-c", PROBE).stdout.strip()).is_relative_to(environment)


def test_the_commands_with_the_rows_of_another_package(call: Call, tmp_path: Path) -> None:
    trained = call("altprop", "train", "experiment=mypaper/row")
    assert "Test accuracy" in trained.stdout
    run = (tmp_path / "outputs" / "latest").resolve()
    assert run.parent == tmp_path / "outputs" / "mypaper" / "row"
    meta = json.loads((run / "meta.json").read_text())
    assert meta["command"] == ["altprop train", "experiment=mypaper/row"]
    assert len(meta["git"]["commit"]) == 40

    swept = call("altprop", "train", "sweep=mypaper/table", "-m")
    assert "2 runs, 1 done already" in swept.stdout
    assert "2 done" in call("altprop", "status").stdout
    call("python", "-m", "altprop", "report", "formats=markdown")
    assert "80" in (tmp_path / "outputs" / "report" / "report.md").read_text()
    evaluated = call("altprop", "evaluate", "run=outputs/latest", "figures=false")
    assert "on 100 test images" in evaluated.stdout

    listed = call("altprop", "data").stdout
    assert listed.startswith(f"data sets in {tmp_path / 'data'}\n")
    assert "altprop data action=fetch dataset=cifar10" in listed


def test_choices_of_another_package_are_offered(call: Call) -> None:
    page = call("altprop", "train", "--help").stdout
    assert "  model                mine, " in page
    assert "  mypaper              row" in page
    assert "  mypaper              table" in page
    assert call("altprop", "-sc", "query=bash", COMP_LINE="altprop train model=mi").stdout.strip() == "model=mine"
    for name, choice in (("dataset", "stripes"), ("algorithm", "signs"), ("algorithm/weights", "clipped")):
        assert re.search(rf"^  {name} +{choice}, ", page, re.MULTILINE)
    assert "Net" in call("altprop", "train", "--cfg", "job", "model=mine").stdout


def test_a_snapshot_holds_altprop_and_the_other_package(call: Call, environment: Path, tmp_path: Path) -> None:
    code = "from pathlib import Path; from altprop.sweeping.snapshot import take_snapshot; print(take_snapshot(Path('copies')))"
    copy = Path(tmp_path, call("python", "-c", code).stdout.strip())
    where = "import altprop, mypackage; print(altprop.__file__, mypackage.__file__)"
    found = call("python", "-c", where, PYTHONPATH=f"{copy}/src").stdout.split()
    assert [Path(file).is_relative_to(copy) for file in found] == [True, True]
    arguments = ("train", "experiment=mypaper/row", "task=validate", f"paths.outputs={tmp_path}/elsewhere")
    assert call("python", "-m", "altprop", *arguments, PYTHONPATH=f"{copy}/src").stdout.startswith("valid: mypaper/row")


def test_the_suite_of_the_other_package_passes(call: Call, environment: Path) -> None:
    tests = environment.parent / "project" / "tests"
    done = call(
        "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not composes", "--rootdir", str(tests), str(tests)
    )
    assert re.search(r"^\d+ passed", done.stdout.splitlines()[-1]), done.stdout


def test_the_readme_s_python_runs(call: Call) -> None:
    _, _, section = (ROOT / "README.md").read_text().partition("## As a library")
    [code] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    code += "assert len(problems) == 1 and accuracy > 50 and [each.status for each in runs] == ['done', 'done']\n"
    code += "import torch\nassert model(torch.zeros(2, *model.input_shape)).shape == (2, 10)"
    call("python", "-c", code)
