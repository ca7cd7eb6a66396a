"""``benchmarks/gpu.py --quick --device cpu``: every part runs, results are written as they come, and a second call resumes."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import gpu
import gpu_kit
import pytest

ROOT = Path(__file__).resolve().parents[2]


def call(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/gpu.py", "--quick", "--device=cpu", f"--results={folder}", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


RUN_HERE = ("tests", "loop", "training")
"""The other parts call benchmarks that ``run.py --quick`` runs, too."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_parts_are_completed_and_not_repeated(tmp_path: Path) -> None:
    done = call(tmp_path, "--minutes=12", "--parts", *RUN_HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads((tmp_path / "results.json").read_text())["parts"]
    assert tuple(parts) == RUN_HERE
    assert all(part["state"] == "complete" and part["lines"] for part in parts.values())
    assert {line["outcome"] for line in parts["tests"]["lines"]} == {"passed"}
    assert parts["training"]["lines"][0]["status"] == "done"
    text = (tmp_path / "results.md").read_text()
    titles = [line.partition(":")[0].removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert tuple(titles) == RUN_HERE
    again = call(tmp_path, "--parts", *RUN_HERE)
    assert again.returncode == 0
    assert again.stdout.count("complete already") == len(RUN_HERE)


@pytest.mark.parametrize("part", gpu.BENCHMARKS)
def test_benchmarks_understand_their_command_lines(part: str) -> None:
    name, full, quick = gpu.BENCHMARKS[part]
    for arguments in (full, quick):
        args = importlib.import_module(name).parser().parse_args([*arguments.split(), "--device", "cuda", "--clock", "wall"])
        assert args.device == "cuda"


def test_without_time_nothing_is_started(tmp_path: Path) -> None:
    done = call(tmp_path, "--minutes=0.01", "--parts", "loop")
    assert done.returncode == 1
    assert "loop: no time is left" in done.stdout
    assert json.loads((tmp_path / "results.json").read_text())["parts"]["loop"]["state"] == "not started"


def test_a_part_that_hangs_is_cut_off_and_what_it_wrote_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "hangs.py"
    program.write_text(
        "import pathlib, sys, time\n"
        "folder = next(option.partition('=')[2] for option in sys.argv if option.startswith('--results'))\n"
        "pathlib.Path(folder, 'loop.jsonl').write_text('{\"what\": \"first\"}\\n')\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr(gpu, "__file__", str(program))
    args = gpu.parser().parse_args(["--device=cpu", f"--results={tmp_path}"])
    results = gpu.Results(tmp_path, "cpu")
    state, seconds = gpu._run_limited("loop", 3.0, args, results)
    results.store("loop", state, seconds, False)
    assert state == "cut off"
    assert seconds < 20
    assert json.loads((tmp_path / "results.json").read_text())["parts"]["loop"]["lines"] == [{"what": "first"}]
    assert not results.complete("loop", False)
    assert "cut off" in (tmp_path / "results.md").read_text()


def test_results_of_other_code_or_another_device_are_not_complete(tmp_path: Path) -> None:
    results = gpu.Results(tmp_path, "cpu")
    results.store("loop", "complete", 1.0, False)
    assert gpu.Results(tmp_path, "cpu").complete("loop", False)
    assert not gpu.Results(tmp_path, "cpu").complete("loop", True)
    again = gpu.Results(tmp_path, "cpu")
    again.machine["device"] = "another"
    assert not again.complete("loop", False)


def test_the_kit_knows_the_version_of_every_package(tmp_path: Path) -> None:
    assert {gpu_kit.normalized(name) for name in gpu_kit.PACKAGES} <= gpu_kit.versions().keys()
    gpu_kit.write_script(tmp_path)
    done = subprocess.run(["bash", "-n", tmp_path / "run.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
