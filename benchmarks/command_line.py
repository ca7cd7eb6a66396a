"""The command line of a benchmark that is run as a script."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from measuring import CLOCKS, Row
from reporting import Section, aligned, line, machine, write_json

from altprop.allocator import keep_freed_memory


def standard_parser(doc: str | None, rounds: int, clock: str = "process") -> argparse.ArgumentParser:
    """Return a parser with ``--rounds``, ``--clock``, ``--device`` and ``--json``."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"default {rounds}")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default=clock, help=f"default {clock}")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda, with --clock wall")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    return parser


def main(parser: argparse.ArgumentParser, rows: Callable[[argparse.Namespace], Iterator[Row]]) -> None:
    """Measure ``rows``, print each as soon as it is there and the table at the end, and write ``--json``."""
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    results = []
    for row in rows(args):
        print(line(row), file=sys.stderr, flush=True)
        results.append(row)
    name = Path(sys.argv[0]).stem
    section = Section(name, " ".join(sys.argv[1:]), machine(args.clock, args.device), tuple(results))
    print(aligned([section]))
    if args.json:
        write_json([section], args.json)
