"""Cost of submitting a sweep to SLURM, compared with Hydra's sweeper and submitit's launcher, and with bare calls of sbatch.

    python benchmarks/submission.py [--runs 100] [--rounds 3] [--json result.json]

Needs a SLURM that accepts held jobs (`make slurm-up`, `export SLURM_CONF=…`). Each side submits the same number of held jobs,
which are canceled immediately; sides alternate. Every side is a separate process, measured from start to end, so imports count.
`wall` is wall time in seconds, `cpu` the processor time of the process and its children. The parts of altprop's submission are
measured in one more process per round, by timers around the functions that do them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PARTS = {
    "Hydra's composition": ("hydra._internal.hydra", "Hydra.compose_config"),
    "configuration of each run": ("altprop.config.compose", "JobComposer.compose"),
    "its values resolved": ("altprop.sweeping.jobs", "to_plain"),
    "its key": ("altprop.sweeping.jobs", "run_key"),
    "copy of the code": ("altprop.sweeping.slurm", "take_snapshot"),
    "array job, sbatch included": ("altprop.sweeping.slurm", "submit_runs"),
    "table job, sbatch included": ("altprop.sweeping.slurm", "submit_table"),
    "list of the runs": ("altprop.sweeping.jobs", "Manifest.write"),
}
REST = "start, imports and the rest"
CLOCKS = ("wall", "cpu")
BASELINES = ("submitit", "sbatch")
Seconds = dict[str, float]


def clocks() -> tuple[float, float]:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(each.ru_utime + each.ru_stime for each in used)


def measured(command: list[str], outputs: Path) -> Seconds:
    """Return the seconds of ``command`` and cancel its jobs."""
    environment = {**os.environ, "ALTPROP_OUTPUTS": str(outputs)}
    wall, cpu = clocks()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    after_wall, after_cpu = clocks()
    subprocess.run(["scancel", "--me"], check=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)[:200]}: {done.stdout}{done.stderr}")
    return dict(zip(CLOCKS, (after_wall - wall, after_cpu - cpu), strict=True))


def sweep(runs: int, *more: str) -> list[str]:
    return ["-m", "resources=cpu", "resources.memory=1", f"seed={','.join(map(str, range(runs)))}", *more]


def of_altprop(runs: int) -> list[str]:
    return sweep(runs, "cluster=slurm", "+cluster.sbatch.hold=true")


def of_submitit(runs: int) -> list[str]:
    """Return the arguments for Hydra's basic sweeper and hydra-submitit-launcher, which `plain` stops before it waits."""
    launcher = ["hydra/launcher=submitit_slurm", "+hydra.launcher.additional_parameters.hold=true", "hydra.launcher.mem_gb=1"]
    return sweep(runs, "hydra/sweeper=basic", *launcher)


def timed(function: Callable[..., Any], entry: Seconds) -> Callable[..., Any]:
    def run(*arguments: Any, **options: Any) -> Any:
        before = clocks()
        try:
            return function(*arguments, **options)
        finally:
            for clock, start, end in zip(entry, before, clocks(), strict=True):
                entry[clock] += end - start

    return run


def parts(file: Path, arguments: list[str]) -> None:
    """Submit with timers around the parts, and write their times to ``file``."""
    times: dict[str, Seconds] = {}
    for name, (module, path) in PARTS.items():
        times[name] = dict.fromkeys(CLOCKS, 0.0)
        *kinds, function = path.split(".")
        owner: Any = importlib.import_module(module)
        for kind in kinds:
            owner = getattr(owner, kind)
        setattr(owner, function, timed(getattr(owner, function), times[name]))
    run_train(arguments)
    file.write_text(json.dumps(times))


def plain(arguments: list[str]) -> None:
    """Submit with submitit's launcher and exit right after that; the launcher would wait until the jobs have ended."""
    import submitit

    submit = submitit.AutoExecutor.map_array

    def submit_and_exit(*values: Any) -> None:
        submit(*values)
        os._exit(0)

    submitit.AutoExecutor.map_array = submit_and_exit
    run_train(arguments)
    sys.exit("nothing was submitted")


def run_train(arguments: list[str]) -> None:
    sys.argv = [str(ROOT / "train.py"), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")


def one_round(runs: int, folder: Path) -> dict[str, Any]:
    myself, train = [sys.executable, __file__], [sys.executable, str(ROOT / "train.py")]
    calls = f"for number in $(seq {runs}); do sbatch --hold --mem=1 --output=/dev/null --wrap true; done"
    sides = {
        "altprop": measured([*train, *of_altprop(runs)], folder / "altprop"),
        "submitit": measured([*myself, "--plain", *of_submitit(runs)], folder / "submitit"),
        "sbatch": measured(["bash", "-c", calls], folder),
    }
    times = folder / "parts.json"
    whole = measured([*myself, "--parts", str(times), *of_altprop(runs)], folder / "parts")
    shares: dict[str, Seconds] = json.loads(times.read_text())
    shares[REST] = {clock: whole[clock] - sum(share[clock] for share in shares.values()) for clock in whole}
    return {**sides, "parts": shares}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rounds = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            rounds.append(one_round(options.runs, Path(folder)))

    def median(*path: str) -> Seconds:
        return {clock: round(statistics.median(_at(one, path)[clock] for one in rounds), 3) for clock in CLOCKS}

    for one in rounds:
        one["ratio"] = {side: {clock: one[side][clock] / one["altprop"][clock] for clock in CLOCKS} for side in BASELINES}
    result = {
        "runs": options.runs,
        "rounds": options.rounds,
        "load": os.getloadavg()[0],
        "seconds": {side: median(side) for side in ("altprop", *BASELINES)},
        "seconds by part": {name: median("parts", name) for name in (*PARTS, REST)},
        "baseline / altprop": {side: median("ratio", side) for side in BASELINES},
        "each round": rounds,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")


def _at(content: Any, path: tuple[str, ...]) -> Seconds:
    for name in path:
        content = content[name]
    return dict(content)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--plain"]:
        plain(sys.argv[2:])
    elif sys.argv[1:2] == ["--parts"]:
        parts(Path(sys.argv[2]), sys.argv[3:])
    else:
        main()
