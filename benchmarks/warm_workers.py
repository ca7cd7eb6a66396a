"""Runs per minute of a local sweep with warm workers, compared with a new Python process for each run, and their memory.

    python benchmarks/warm_workers.py [--runs 20] [--rounds 1] [--clock wall] [--json result.json]

Each side is the command `train.py -m trainer.duration=1ep seed=0,…` with the default network, one run at a
time (`cluster.workers=1`), timed from start to end: the warm side imports torch once, and this counts. `--clock process` measures
the processor time of the command and all its processes instead, for busy machines. Memory is the proportional set size
(`/proc/<pid>/smaps_rollup`) of a sweep of two runs at a time, its command included, at the moment at which it is largest,
compared with that of one run in a process of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from command_line import main, standard_parser
from measuring import Row, at_least, at_most, paired, time_of_children

ROOT = Path(__file__).resolve().parents[1]
SUITE = "--rounds 1 --clock wall"
QUICK = "--runs 2 --rounds 1 --clock process --short"
POLL_SECONDS = 0.02


def command(outputs: Path, seeds: range, *overrides: str) -> list[str]:
    listed = f"seed={','.join(map(str, seeds))}"
    return [sys.executable, str(ROOT / "train.py"), *overrides, listed, f"paths.outputs={outputs}"]


def seconds(line: list[str], clock: str) -> float:
    """The wall time of the command ``line``, or the processor time of all its processes."""
    now = time.perf_counter if clock == "wall" else time_of_children
    start = now()
    subprocess.run(line, check=True, capture_output=True)
    return now() - start


def peak_memory(line: list[str]) -> float:
    """The largest sum of the proportional set sizes of the processes of ``line``, in MB."""
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, sum(map(memory, [process.pid, *descendants(process.pid)])))
        time.sleep(POLL_SECONDS)
    return peak


def descendants(pid: int) -> Iterator[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in map(int, children):
        yield child
        yield from descendants(child)


def memory(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(float(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def parser() -> argparse.ArgumentParser:
    parser = standard_parser(__doc__, rounds=1, clock="wall")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--baseline-runs", type=int, help="runs of the baseline, if fewer: time is per run")
    parser.add_argument("--short", action="store_true", help="runs of two steps without figures")
    return parser


def rows(args: argparse.Namespace) -> Iterator[Row]:
    short = ["trainer.limit_batches=2", "trainer.figures=false"] if args.short else []
    length = ["trainer.duration=1ep", f"trainer.device={args.device}", *short]
    sides = {"cold": "cluster.warm=false", "warm": "cluster.warm=true"}
    runs = {"cold": args.baseline_runs or args.runs, "warm": args.runs}
    times: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(args.rounds):
        for side in list(sides)[:: -1 if number % 2 else 1]:
            with tempfile.TemporaryDirectory() as folder:
                line = command(Path(folder), range(runs[side]), "-m", "cluster.workers=1", sides[side], *length)
                times[side].append(seconds(line, args.clock) / runs[side])
    what = f"{args.runs} runs of one epoch, warm workers"
    limit = at_least(4.0, "target: torch is imported once")
    yield paired(what, "a new process for each run", times["cold"], times["warm"], limit, unit="s per run", scale=1.0)
    if not Path("/proc/self/smaps_rollup").exists():
        return
    workers = 2
    with tempfile.TemporaryDirectory() as folder:
        one = peak_memory(command(Path(folder) / "one", range(1), *length))
        line = command(Path(folder) / "warm", range(2 * workers), "-m", f"cluster.workers={workers}", *length)
        warm = peak_memory(line)
    yield Row(
        f"memory of {workers} warm workers",
        "one process",
        warm / one,
        at_most(workers + 1.0, "target: one process more than there are workers"),
        measure="memory",
        values={"warm, MB": warm, "one process, MB": one},
    )


if __name__ == "__main__":
    main(parser(), rows)
