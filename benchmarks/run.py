"""Run all benchmarks and print one table: what was measured, its baseline, the ratio, its quartiles and its limit.

    OMP_NUM_THREADS=1 python benchmarks/run.py                                  # about ten minutes on an idle core
    python benchmarks/run.py --only loop_overhead scaling --json result.json    # some of them
    python benchmarks/run.py --document docs/performance.md                     # write tables and figure to the document
    python benchmarks/run.py --quick                                            # does everything still run? ignore the numbers

A benchmark that fails is named at the end, and the exit status is 1; a missed limit is not a failure. All ratios are for one
torch thread. ``--clock`` applies to benchmarks in this process; those with several processes always use the wall clock.
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

from altprop.allocator import keep_freed_memory
from altprop.files import write_bytes

NAMES = (
    "loop_overhead",
    "throughput",
    "airbench",
    "cuda_graphs",
    "input_pipeline",
    "algorithm_step",
    "block_algorithms_step",
    "feedback_step",
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
    "warm_workers",
    "freed_memory",
)
"""The most informative first."""

WALL = ("parallel_blocks", "data_parallel", "warm_workers")


def measure(name: str, arguments: str, clock: str | None, device: str) -> Section:
    """Run one benchmark and print its rows one by one."""
    module: Any = importlib.import_module(name)
    if clock and name not in WALL:
        arguments = f"{arguments} --clock {clock}"
    if device != "cpu":
        arguments = f"{arguments} --device {device}"
    args = module.parser().parse_args(arguments.split())
    facts = machine(args.clock, args.device)
    rows = []
    for row in module.rows(args):
        print(line(row), flush=True)
        rows.append(row)
    return Section(name, arguments, facts, tuple(rows))


def sections(names: Sequence[str], quick: bool, clock: str | None, device: str, failed: list[str]) -> Iterator[Section]:
    """Run all benchmarks in turn; names of those that fail are added to ``failed``."""
    for position, name in enumerate(names, start=1):
        module: Any = importlib.import_module(name)
        arguments = module.QUICK if quick else module.SUITE
        print(f"[{position}/{len(names)}] {name} {arguments}", flush=True)
        wall, processor = time.perf_counter(), time.process_time()
        try:
            yield measure(name, arguments, clock, device)
        except Exception:
            traceback.print_exc()
            failed.append(name)
        print(f"    {time.perf_counter() - wall:.0f} s, {time.process_time() - processor:.0f} s of processor time", flush=True)


def write(results: Sequence[Section], json: Path | None, document: Path | None) -> None:
    """Write all results so far, so that nothing is lost if a later benchmark is interrupted."""
    if json:
        write_json(results, json)
        write_bytes(json.with_suffix(".md"), "\n".join(markdown(section) for section in results).encode())
    if document:
        write_document(results, document, NAMES)
        if results[-1].name == "scaling":
            from scaling_figure import draw  # only this needs matplotlib

            draw(results[-1].rows, document.parent / "figures" / "scaling.png")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="use tiny sizes; takes a minute or two")
    parser.add_argument("--clock", choices=sorted(CLOCKS), help="for all benchmarks; default: processor time")
    parser.add_argument("--device", default="cpu", help="of all benchmarks: cpu (default), or cuda with --clock wall")
    parser.add_argument("--json", type=Path, help="write the rows to this file, and the tables as Markdown next to it")
    parser.add_argument(
        "--document", type=Path, help="replace the tables in this Markdown file; figures go to figures/ next to it"
    )
    return parser


def main() -> int:
    args = parser().parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    failed: list[str] = []
    results: list[Section] = []
    for section in sections(args.only, args.quick, args.clock, args.device, failed):
        results.append(section)
        write(results, args.json, args.document)
    print(aligned(results))
    rows = [row for section in results for row in section.rows]
    missed = sum(verdict(row) != "met" for row in rows)
    print(f"\n{len(rows)} rows, {len(rows) - missed} met, {missed} missed")
    if failed:
        print("failed:", ", ".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
