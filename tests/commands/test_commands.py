"""The commands as a user types them, in processes of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from altprop.commands.main import main
from altprop.training.checkpoint import read_checkpoint
from tests.algorithms.harness import assert_equal

CommandLine = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).resolve().parents[2]
TINY = ["model.hidden=[16]", "dataset.limit_train=400", "dataset.limit_test=200", "trainer.figures=false", "trainer.threads=1"]


def command(script: str, *arguments: str, outputs: Path) -> list[str]:
    return [sys.executable, str(ROOT / script), *arguments, f"paths.outputs={outputs}"]


def call(script: str, *arguments: str, outputs: Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(script, *arguments, outputs=outputs), cwd=cwd or outputs, capture_output=True, text=True)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    """Run a command in this process, in an empty folder; returns its exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        try:
            main(name)
            code = 0
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        return code, *capsys.readouterr()

    return run


def test_train_evaluate_resume_by_directory(tmp_path: Path) -> None:
    """From an arbitrary folder: train, skip, evaluate to the same numbers, go on from the directory."""
    done = call("train.py", "trainer.duration=2ep", "trainer.figures=true", *TINY[:3], outputs=tmp_path)
    assert done.returncode == 0, done.stderr
    run = (tmp_path / "latest").resolve()
    assert f"Run directory: {run.relative_to(tmp_path)}" in done.stdout
    assert {"curves.png", "confusion.png", "mistakes.png"} <= {path.name for path in (run / "figures").iterdir()}
    status = json.loads((run / "status.json").read_text())
    assert status["status"] == "done"

    again = call("train.py", "trainer.duration=2ep", "trainer.figures=true", *TINY[:3], outputs=tmp_path)
    assert again.returncode == 0
    assert "done already" in again.stderr

    evaluated = call("evaluate.py", f"run={tmp_path}/latest", outputs=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    [result] = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert result["accuracy"] == status["last"]["test/accuracy"]
    assert result["loss"] == pytest.approx(status["last"]["test/loss"], rel=1e-6)
    assert f"accuracy {result['accuracy']:.2f} %" in evaluated.stdout

    resumed = call("train.py", f"run={tmp_path}/latest", outputs=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "done already" in resumed.stderr
    fixed = call("train.py", f"run={run}", "seed=3", outputs=tmp_path)
    assert fixed.returncode == 2
    assert fixed.stderr.startswith("seed: is fixed by the run")


def test_a_killed_command_given_again_ends_with_the_same_weights(tmp_path: Path) -> None:
    arguments = ["trainer.duration=40ep", "trainer.checkpoint_every=3st", *TINY]
    assert call("train.py", *arguments, outputs=tmp_path).returncode == 0
    straight = read_checkpoint((tmp_path / "latest").resolve() / "checkpoints" / "last.pt")
    killed = tmp_path / "killed"
    killed.mkdir()
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(
            command("train.py", *arguments, outputs=killed), stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )
        before = _step(killed)
        while process.poll() is None and _step(killed) <= before:
            time.sleep(0.005)
        process.send_signal(number)
        _, stderr = process.communicate()
        assert process.returncode in (-signal.SIGKILL, 143)
        if number == signal.SIGTERM:
            assert "Resume with: python train.py run=" in stderr
            assert "Traceback" not in stderr
    assert call("train.py", *arguments, outputs=killed).returncode == 0
    finished = read_checkpoint((killed / "latest").resolve() / "checkpoints" / "last.pt")
    assert_equal(straight["algorithm"], finished["algorithm"])
    assert_equal(straight["random"], finished["random"])


def _step(outputs: Path) -> int:
    try:
        return int(json.loads((outputs / "latest" / "status.json").read_text())["step"])
    except (OSError, ValueError):
        return 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trainer.epohcs=3"], r"^trainer\.epohcs: there is no such key.*$"),
        (["model=mpl"], r"^model: there is no choice 'mpl'.*try: model=mlp$"),
        (["dataset=mnist", "paths.data=nowhere"], r"^dataset: .*nowhere.*python data\.py.*dataset=mnist paths\.data=nowhere$"),
        (["algorithm.momentum=0.9"], r"^algorithm\.momentum: .*$"),
        (["model/units=sign_step"], r"^.*estimator.*$"),
        (["trainer.duration=ten"], r"^trainer\.duration: .*10ep.*$"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(here: CommandLine, tmp_path: Path, arguments: list[str], expected: str) -> None:
    code, out, err = here("train", *arguments, f"paths.outputs={tmp_path}/outputs")
    assert (code, out) == (2, "")
    [line] = err.strip().splitlines()
    assert re.match(expected, line), line
    assert list(tmp_path.iterdir()) == []


def test_a_tampered_configuration_is_checked_again(here: CommandLine, tmp_path: Path) -> None:
    assert here("train", "trainer.duration=1ep", *TINY, f"paths.outputs={tmp_path}")[0] == 0
    run = (tmp_path / "latest").resolve()
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["_target_"] = "os.system"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    for command_name in ("train", "evaluate"):
        code, _, err = here(command_name, f"run={run}", f"paths.outputs={tmp_path}")
        assert code == 2, err
        assert "Traceback" not in err


def test_help_imports_no_torch(tmp_path: Path) -> None:
    for script in ("train.py", "evaluate.py"):
        result = subprocess.run(
            [sys.executable, "-X", "importtime", str(ROOT / script), "--help"], capture_output=True, text=True, cwd=tmp_path
        )
        assert result.returncode == 0
        assert not re.search(r"\|\s+torch$", result.stderr, re.MULTILINE)
        assert len(result.stdout.splitlines()) <= 45


def test_a_sweep_trains_every_value(tmp_path: Path) -> None:
    result = call("train.py", "-m", "seed=0,1", "trainer.duration=1ep", "logger=console", *TINY, outputs=tmp_path)
    assert result.returncode == 0, result.stderr
    states = [json.loads(path.read_text()) for path in (tmp_path / "scratch").glob("*/status.json")]
    assert [state["status"] for state in states] == ["done", "done"]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_train_passes_overrides_on() -> None:
    environment = {**os.environ, "MAKEFLAGS": ""}
    result = subprocess.run(
        ["make", "-n", "train", "ARGS=seed=3 model=mlp"], cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert "train.py seed=3 model=mlp" in result.stdout
