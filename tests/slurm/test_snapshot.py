"""The code that was submitted is the code that runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from altprop.config.project import ROOT
from altprop.config.sweeping.jobs import manifests
from tests.slurm.jobs import PATIENCE, SMALL, wait_for_end


def test_the_checkout_may_be_edited_while_jobs_wait(tmp_path: Path) -> None:
    checkout, outputs = tmp_path / "checkout", tmp_path / "outputs"
    for name in ("src", "conf", "sweeps"):
        shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for script in ROOT.glob("*.py"):
        shutil.copy(script, checkout)
    environment = {**os.environ, "ALTPROP_OUTPUTS": str(outputs), "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "train.py", "-m", "cluster=slurm", *SMALL, "trainer.duration=1ep", "+cluster.sbatch.hold=true"]
    done = subprocess.run(line, cwd=checkout, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    for broken in ("train.py", "src/altprop/config/entry.py", "src/altprop/training/run.py", "conf/train.yaml"):
        (checkout / broken).write_text("raise SystemExit('edited')\n")
    sweep = next(manifests(outputs))
    [run] = sweep.runs
    subprocess.run(["scontrol", "release", run.job or ""], check=True)
    wait_for_end(run)
    subprocess.run(["scancel", sweep.table or ""], check=True)
    assert run.status.get("status") == "done", run.printed
