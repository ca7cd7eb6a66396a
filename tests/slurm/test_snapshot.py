"""The code that was submitted is the code that runs; a site's own settings reach its jobs."""

from __future__ import annotations

import subprocess
from pathlib import Path

from altprop.sweeping.jobs import manifests
from tests.slurm.jobs import SMALL, cancel, checkout, command, wait_for_end

SITE = """\
# @package _global_
paths: {outputs: %s}
cluster:
  partition: test
  account: my_group
  time: 7
  setup: [export SITE_MODULES=loaded]
  sbatch: {comment: from the site, hold: true}
resources:
  memory: 1
"""


def test_the_checkout_may_be_edited_while_jobs_wait(tmp_path: Path) -> None:
    code, outputs = checkout(tmp_path / "checkout"), tmp_path / "outputs"
    overrides = ["cluster=slurm", *SMALL, "trainer.duration=1ep", "+cluster.sbatch.hold=true"]
    done = command(outputs, "train.py", "-m", *overrides, root=code)
    assert done.returncode == 0, done.stderr
    for broken in ("train.py", "src/altprop/commands/entry.py", "src/altprop/training/run.py", "conf/train.yaml"):
        (code / broken).write_text("raise SystemExit('edited')\n")
    sweep = next(manifests(outputs))
    [run] = sweep.runs
    subprocess.run(["scontrol", "release", run.job or ""], check=True)
    wait_for_end(run)
    subprocess.run(["scancel", sweep.table or ""], check=True)
    assert run.status.get("status") == "done", run.printed


def test_a_sites_settings_reach_the_job(tmp_path: Path) -> None:
    code, outputs = checkout(tmp_path / "checkout"), tmp_path / "of the site"
    (code / "conf/local/default.yaml").write_text(SITE % outputs)
    done = command(tmp_path / "unused", "train.py", "-m", "cluster=slurm", root=code)
    assert done.returncode == 0, done.stderr
    sweep = next(manifests(outputs))
    [run] = sweep.runs
    shown = subprocess.run(["scontrol", "show", "job", run.job or ""], capture_output=True, text=True, check=True).stdout
    cancel(sweep)
    for word in ("TimeLimit=00:07:00", "Comment=from the site", "Reason=JobHeldUser", "mem=1G"):
        assert word in shown, word
    [submission] = sweep.folder.glob(f".submitit/{sweep.job}*/*submission.sh")
    lines = submission.read_text().splitlines()
    assert {"#SBATCH --partition=test", "#SBATCH --account=my_group"} <= set(lines)
    assert "export SITE_MODULES=loaded" in lines
