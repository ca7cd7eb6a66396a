"""Every benchmark, one table: what was measured, against what, the ratio, its quartiles, the limit it is held against.

    OMP_NUM_THREADS=1 python benchmarks/run.py                                  # about ten minutes on an idle core
    python benchmarks/run.py --only loop_overhead scaling --json result.json    # some of them
    python benchmarks/run.py --document docs/performance.md                     # the tables into the document, with the figure
    python benchmarks/run.py --quick                                            # does everything still run? numbers mean nothing

A benchmark that fails is named at the end, with exit status 1; a limit that is missed is no failure. All ratios are of one torch
thread. ``--clock`` is for those that run in this process; several processes are always timed by the clock on the wall.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from measuring import CLOCKS
from reporting import Section, aligned, line, machine, markdown, verdict, write_document, write_json

from altprop.files import write_bytes

NAMES = (
    "loop_overhead",
    "input_pipeline",
    "algorithm_step",
    "block_algorithms_step",
    "scaling",
    "parallel_blocks",
    "data_parallel",
    "equilibrium_propagation_step",
    "target_propagation_step",
    "target_propagation_training",
    "iterative_binary_step",
    "sparse_structure_update",
    "decoupled_greedy",
    "observation",
    "sparse_inference",
)
"""The most telling first."""

WALL = ("parallel_blocks", "data_parallel")


def measure(name: str, arguments: str, clock: str | None) -> Section:
    """The rows of one benchmark, shown one by one."""
    module: Any = importlib.import_module(name)
    if clock and name not in WALL:
        arguments = f"{arguments} --clock {clock}"
    given = module.parser().parse_args(arguments.split())
    facts = machine(given.clock, getattr(given, "device", "cpu"))
    rows = []
    for row in module.rows(given):
        print(line(row), flush=True)
        rows.append(row)
    return Section(name, arguments, facts, tuple(rows))


def sections(names: Sequence[str], quick: bool, clock: str | None, failed: list[str]) -> Iterator[Section]:
    """All benchmarks in turn; those that break are added to ``failed``."""
    for position, name in enumerate(names, start=1):
        module: Any = importlib.import_module(name)
        arguments = module.QUICK if quick else module.SUITE
        print(f"[{position}/{len(names)}] {name} {arguments}", flush=True)
        started, worked = time.perf_counter(), time.process_time()
        try:
            yield measure(name, arguments, clock)
        except Exception:
            traceback.print_exc()
            failed.append(name)
        print(f"    {time.perf_counter() - started:.0f} s, {time.process_time() - worked:.0f} s of processor time", flush=True)


def write(found: Sequence[Section], to: Path | None, document: Path | None) -> None:
    """All that is there so far, so that nothing is lost where the rest is broken off."""
    if to:
        write_json(found, to)
        write_bytes(to.with_suffix(".md"), "\n".join(markdown(section) for section in found).encode())
    if document:
        write_document(found, document, NAMES)
        if found[-1].name == "scaling":
            from scaling_figure import draw  # matplotlib is wanted here only

            draw(found[-1].rows, document.parent / "figures" / "scaling.png")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, a minute or two")
    parser.add_argument("--clock", choices=sorted(CLOCKS), help="for all benchmarks; default: processor time")
    parser.add_argument("--json", type=Path, help="write the rows there, and the tables as Markdown beside it")
    parser.add_argument("--document", type=Path, help="replace the measured tables in this Markdown file; figures go beside it")
    return parser


def main() -> int:
    given = parser().parse_args()
    torch.set_num_threads(1)
    failed: list[str] = []
    found: list[Section] = []
    for section in sections(given.only, given.quick, given.clock, failed):
        found.append(section)
        write(found, given.json, given.document)
    print(aligned(found))
    every = [row for section in found for row in section.rows]
    missed = [row.what for row in every if verdict(row) != "held"]
    print(f"\n{len(every)} rows, {len(every) - len(missed)} held, {len(missed)} missed")
    if failed:
        print("failed:", ", ".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
