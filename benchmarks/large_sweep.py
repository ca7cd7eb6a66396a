"""Processor time of a sweep of 1,000 runs: composed, planned and submitted in batches, shown by status.py, reported by report.py.

    python benchmarks/large_sweep.py [--runs 1000] [--json result.json]

Each row is one command, measured from start to end with its children; imports count. The jobs are held and canceled afterwards,
which needs a SLURM (`make slurm-up`, `export SLURM_CONF=…`); without one, only planning and the report are measured. `plan` is a
local sweep whose runs are all done already, so nothing is started. The runs of the report are copies of one finished run of one
epoch, with other seeds and keys; they are not trained.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from measuring import time_of_children

from altprop.config.key import run_key

ROOT = Path(__file__).resolve().parents[1]
TINY = ["trainer.duration=1ep", "trainer.limit_batches=2", "trainer.figures=false", "model.hidden=[8]", "trainer.device=cpu"]
LIMITS = {"plan": 10.0, "submit": 10.0, "status.py": 10.0, "status.py of the finished runs": 10.0, "report.py": 15.0}
"""Seconds of processor time for 1,000 runs."""


def measured(outputs: Path, script: str, *arguments: str) -> float:
    """Seconds of processor time of a command and its children."""
    before = time_of_children()
    line = [sys.executable, str(ROOT / script), *arguments, f"paths.outputs={outputs}"]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(line)[:200]}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time_of_children() - before


def submitted(folder: Path, runs: int) -> dict[str, float]:
    outputs = folder / "slurm"
    batches = [f"hydra.sweeper.max_batch_size={max(1, runs // 2)}", "+cluster.sbatch.hold=true"]
    line = ["-m", "cluster=slurm", "resources=cpu", "resources.memory=1", *TINY, f"seed=range({runs})", *batches]
    try:
        submit = measured(outputs, "train.py", *line)
        return {"submit": submit, "status.py": measured(outputs, "status.py")}
    finally:
        subprocess.run(["scancel", "--me", "--state=PENDING"], capture_output=True)


def fabricate(outputs: Path, runs: int) -> None:
    """Train one run and copy it ``runs - 1`` times with other seeds."""
    measured(outputs, "train.py", *TINY, "seed=0")
    [first] = (path for path in (outputs / "scratch").iterdir() if path.is_dir() and not path.is_symlink())
    config: dict[str, Any] = yaml.safe_load((first / "config.yaml").read_text())
    for seed in range(1, runs):
        copy = {**config, "seed": seed}
        folder = first.parent / run_key(copy)
        shutil.copytree(first, folder, symlinks=True)
        (folder / "config.yaml").write_text((first / "config.yaml").read_text().replace("\nseed: 0\n", f"\nseed: {seed}\n"))


def finished(folder: Path, runs: int) -> dict[str, float]:
    outputs = folder / "finished"
    fabricate(outputs, runs)
    return {
        "plan": measured(outputs, "train.py", "-m", *TINY, f"seed=range({runs})"),
        "status.py of the finished runs": measured(outputs, "status.py"),
        "report.py": measured(outputs, "report.py"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        times = finished(folder, options.runs)
        if shutil.which("sbatch") is not None:
            times |= submitted(folder, options.runs)
    rows = {what: {"seconds": round(value, 2), "limit for 1,000 runs": LIMITS[what]} for what, value in times.items()}
    text = json.dumps({"runs": options.runs, "load": os.getloadavg()[0], "processor time": rows}, indent=2)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
