"""Everything worth knowing about altprop on a GPU, in the order of its value, with one command that may be cut off at any time.

    python benchmarks/gpu.py [--minutes 8] [--device cuda] [--results gpu-results] [--data data] [--parts tests steps ...]
    python benchmarks/gpu.py --quick --device cpu                  # does everything still run? ignore the numbers

Every part runs in its own process under its own time limit. Its rows are written as they come, to ``<results>/<part>.jsonl``,
and ``<results>/results.json`` and ``results.md`` are written again after every row. The same command skips the parts that
were completed on the same device by the same code, and repeats the others. A part that fails, hangs or is cut off does not stop
the ones after it; the exit status is then 1.

- ``tests``: the tests that depend on the device (``pytest -m cuda``).
- ``steps``: one step of every algorithm and weights rule, compared with backprop (``algorithm_step.py``).
- ``eqprop``: equilibrium propagation at the paper's size, compared with the straightforward form, with every option and the error
  of its gradient (``equilibrium_propagation_step.py``).
- ``graphs``: steps replayed as CUDA graphs, compared with the same eager steps (``cuda_graphs.py``).
- ``loop``: the training loop compared with a bare loop (``loop_overhead.py``).
- ``airbench``: the network of arXiv 2404.00498 in altprop's loop, compared with a loop as in its paper (``airbench.py``).
- ``throughput``: images per second of whole networks, compared with plain PyTorch (``throughput.py``).
- ``training``: runs on CIFAR-10 (JPEG) for the time that is left. The same command resumes them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measuring import number
from reporting import Section, as_json, machine

from altprop.files import write_bytes

ROOT = Path(__file__).resolve().parents[1]
Line = dict[str, Any]
"""One result as plain values; ``what`` says of what."""


@dataclass(frozen=True)
class Part:
    """A piece of the work: at most ``seconds`` long (``quick`` with ``--quick``); None: the time that is left."""

    lines: Callable[[argparse.Namespace], Iterator[Line]]
    seconds: float | None
    quick: float = 180.0


def benchmark(part: str) -> Callable[[argparse.Namespace], Iterator[Line]]:
    """Return a function that yields the rows of a part of :data:`BENCHMARKS`."""

    def lines(args: argparse.Namespace) -> Iterator[Line]:
        name, full, quick = BENCHMARKS[part]
        module: Any = importlib.import_module(name)
        arguments = f"{quick if args.quick else full} --device {args.device} --clock wall"
        for row in module.rows(module.parser().parse_args(arguments.split())):
            [line] = as_json(Section(name, arguments, {}, (row,)))["rows"]
            yield line

    return lines


def tests(args: argparse.Namespace) -> Iterator[Line]:
    """Yield the outcome of every test that depends on the device."""
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-v", "--no-header", "--tb=line", "-p", "no:cacheprovider"]
    command.append("tests/test_cuda.py")
    if args.quick:
        command += ["-k", "test_a_plan_arrives_on_the_cpu or test_adaptive_pooling"]
    on_cpu = {"ALTPROP_CUDA_TESTS_ON": "cpu"} if args.device == "cpu" else {}
    environment = {**os.environ, "COLUMNS": "200", **on_cpu}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        reasons: list[str] = []
        for text in process.stdout:
            if found := re.match(r"(tests/\S+?)\s+(PASSED|FAILED|ERROR|SKIPPED)", text):
                yield {"what": found[1], "outcome": found[2].lower()}
            elif re.match(r"(/|E )", text):
                reasons.append(text.strip())
        if reasons:
            yield {"what": "reasons of failures", "outcome": "; ".join(reasons)[:4000]}


ROWS = (
    "ftprop/cifar10_convnet4_step_sh",
    "ftprop/cifar10_convnet4_step_sste",
    "dsr/wrn_dynamic",
    "eqprop/cifar10_mse_symmetric",
)
"""Experiments of the part ``training``, which share the time that is left."""
SHARES = (0.4, 0.3, 0.2, 1.0)
"""The share of each in the time that is left when it starts."""


def training(args: argparse.Namespace) -> Iterator[Line]:
    """Train rows of the papers until the time is over. A run is stopped as by a cluster, so it is saved and can be resumed."""
    deadline = time.monotonic() + args.seconds
    names = ("ftprop/quick_step_sh",) if args.quick else ROWS
    for name, share in zip(names, SHARES, strict=False):
        seconds = share * (deadline - time.monotonic()) - 10.0  # for saving
        if seconds < 5:
            return
        outputs = args.results / "runs" / name.replace("/", "_")
        overrides = [f"experiment={name}", f"paths.outputs={outputs}", f"paths.data={args.data}", f"trainer.device={args.device}"]
        overrides += ["trainer.figures=false", "trainer.checkpoint_every=10%"]
        if not args.quick:
            overrides += ["dataset=cifar10_jpeg"]
        else:
            overrides += ["trainer.duration=1ep", "trainer.limit_batches=3"]
        started = time.monotonic()
        process = subprocess.Popen([sys.executable, "train.py", *overrides], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        try:
            _, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            _, errors = process.communicate()
        yield {"what": name, "seconds": time.monotonic() - started, **_state_of(outputs), "exit": process.returncode} | (
            {"error": errors.strip().splitlines()[-1][:500]} if process.returncode not in (0, 143) and errors.strip() else {}
        )


def _state_of(outputs: Path) -> Line:
    """Return how far the only run in ``outputs`` came, and its newest and best records."""
    for path in sorted(outputs.rglob("status.json")):
        status = json.loads(path.read_text())
        record = status.get("last") or {}
        chosen = ("test/accuracy", "train/loss", "time/images_per_second", "time/train_seconds")
        return {
            "status": status.get("status"),
            "epoch": status.get("epoch"),
            "of epochs": status.get("total_epochs"),
            "peak memory": (status.get("peak_memory") or {}).get("bytes"),
            **{key: record[key] for key in chosen if key in record},
        }
    return {"status": "nothing was written"}


BENCHMARKS: Mapping[str, tuple[str, str, str]] = {
    "steps": (
        "algorithm_step",
        "--rounds 3 --groups algorithms rules_mlp rules_cnn energy_mlp",
        "--rounds 1 --tiny --groups energy_mlp",
    ),
    "eqprop": ("equilibrium_propagation_step", "--cases cifar_cnn --rounds 3 --options", "--cases mnist_mlp --rounds 1"),
    "graphs": ("cuda_graphs", "--rounds 5", "--cases backprop_mlp --steps 2 --rounds 1"),
    "loop": ("loop_overhead", "--rounds 7", "--steps 2 --rounds 1"),
    "airbench": ("airbench", "--rounds 3", "--images 64 --batch 32 --epochs 1 --rounds 1 --widths 4 4 4"),
    "throughput": (
        "throughput",
        "--precisions fp32 tf32 bf16 --rounds 3",
        "--models convnet4 --batch 2 --steps 1 --rounds 1",
    ),
}
"""Part -> benchmark and its command line, without and with ``--quick``."""

PARTS: Mapping[str, Part] = {
    "tests": Part(tests, 140),
    "steps": Part(benchmark("steps"), 75),
    "eqprop": Part(benchmark("eqprop"), 90),
    "graphs": Part(benchmark("graphs"), 30),
    "loop": Part(benchmark("loop"), 25),
    "airbench": Part(benchmark("airbench"), 20),
    "throughput": Part(benchmark("throughput"), 40),
    "training": Part(training, None),
}
"""The most valuable first."""


def run_part(name: str, args: argparse.Namespace) -> None:
    """Run one part in this process and append its lines to its file as they come."""
    torch.set_num_threads(args.threads)
    file = args.results / f"{name}.jsonl"
    with file.open("w") as stream:
        for line in PARTS[name].lines(args):
            stream.write(json.dumps(line) + "\n")
            stream.flush()


class Results:
    """What is known so far, as files in ``folder``."""

    def __init__(self, folder: Path, device: str) -> None:
        self.folder = folder
        self.file = folder / "results.json"
        self.machine = machine("wall", device)
        self.parts: dict[str, Any] = {}
        if self.file.is_file():
            self.parts = json.loads(self.file.read_text())["parts"]

    def complete(self, name: str, quick: bool) -> bool:
        """Whether the part was completed here by this code."""
        part = self.parts.get(name, {})
        same = all(part.get("machine", {}).get(fact) == self.machine[fact] for fact in ("device", "torch", "commit"))
        return part.get("state") == "complete" and same and part["quick"] == quick

    def lines(self, name: str) -> list[Line]:
        """The lines that a part has written so far."""
        file = self.folder / f"{name}.jsonl"
        return [json.loads(text) for text in file.read_text().splitlines()] if file.is_file() else []

    def store(self, name: str, state: str, seconds: float, quick: bool) -> None:
        """Write the state of a part and all results."""
        facts = {"state": state, "seconds": round(seconds, 1), "quick": quick, "machine": self.machine}
        self.parts[name] = {**facts, "lines": self.lines(name)}
        self.parts = {key: self.parts[key] for key in PARTS if key in self.parts}
        write_bytes(self.file, (json.dumps({"parts": self.parts}, indent=2) + "\n").encode())
        write_bytes(self.folder / "results.md", self.markdown().encode())

    def markdown(self) -> str:
        """All results as Markdown, one table for each part."""
        text = ["# altprop on a GPU\n"]
        for name, part in self.parts.items():
            facts = part["machine"]
            text.append(f"## {name}: {part['state']} after {part['seconds']} s\n")
            text.append(f"{facts['date']}, {facts['device']}, torch {facts['torch']}, commit {str(facts['commit'])[:7]}\n")
            if name == "tests":
                outcomes = [line["outcome"] for line in part["lines"]]
                counts = {outcome: outcomes.count(outcome) for outcome in ("passed", "failed", "error", "skipped")}
                text.append(", ".join(f"{count} {outcome}" for outcome, count in counts.items()) + "\n")
                text += [
                    f"- {line['what']}: {line['outcome']}"
                    for line in part["lines"]
                    if line["outcome"] not in ("passed", "skipped")
                ]
                continue
            text += ["| what | baseline | result |", "|---|---|---|"]
            text += [f"| {line['what']} | {line.get('baseline', '')} | {_result(line)} |" for line in part["lines"]]
            text.append("")
        return "\n".join(text) + "\n"


def _result(line: Line) -> str:
    """Return a line's numbers in one cell."""
    parts = [f"{line['measure']} ratio {number(line['ratio'])}"] if "ratio" in line else []
    plain = {key: value for key, value in line.items() if not isinstance(value, dict | list) and "ratio" not in line}
    for key, value in {**plain, **(line.get("values") or {})}.items():
        if key not in ("what", "baseline") and value is not None:
            parts.append(f"{key} {number(value) if isinstance(value, float) else value}")
    return "; ".join(parts)


def run(args: argparse.Namespace) -> bool:
    """Run the parts in turn within ``args.minutes``. Returns whether all were completed."""
    args.results.mkdir(parents=True, exist_ok=True)
    results = Results(args.results, args.device)
    deadline = time.monotonic() + 60 * args.minutes
    for name in args.parts:
        if results.complete(name, args.quick):
            print(f"{name}: complete already", flush=True)
            continue
        left = deadline - time.monotonic()
        limit = PARTS[name].quick if args.quick else PARTS[name].seconds
        seconds = left if limit is None else min(limit, left)
        if seconds < 5:
            print(f"{name}: no time is left", flush=True)
            results.store(name, "not started", 0.0, args.quick)
            continue
        state, taken = _run_limited(name, seconds, args, results)
        results.store(name, state, taken, args.quick)
        print(f"{name}: {state} after {taken:.0f} s, {len(results.lines(name))} results", flush=True)
    print(f"written: {results.file} and results.md next to it")
    return all(results.complete(name, args.quick) for name in args.parts)


def _run_limited(name: str, seconds: float, args: argparse.Namespace, results: Results) -> tuple[str, float]:
    """Run one part in a process of its own for at most ``seconds``. Returns its state and how long it took."""
    (args.results / f"{name}.jsonl").unlink(missing_ok=True)
    options = [f"--device={args.device}", f"--results={args.results}", f"--data={args.data}", f"--threads={args.threads}"]
    options += ["--quick"] if args.quick else []
    command = [sys.executable, str(Path(__file__).resolve()), f"--part={name}", f"--seconds={seconds - 5:.1f}", *options]
    paths = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, start_new_session=True)
    written = 0
    while process.poll() is None and time.monotonic() - started < seconds:
        time.sleep(0.2)
        if len(results.lines(name)) > written:
            written = len(results.lines(name))
            results.store(name, "running", time.monotonic() - started, args.quick)
    if process.poll() is None:
        os.killpg(process.pid, 9)  # the part and everything that it has started
        process.wait()
        return "cut off", time.monotonic() - started
    return "complete" if process.returncode == 0 else "failed", time.monotonic() - started


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything; default 8")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--results", type=Path, default=Path("gpu-results"), help="folder to write into")
    parser.add_argument("--data", type=Path, default=Path("data"), help="paths.data, with cifar10-jpeg/ in it")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    args.results, args.data = args.results.resolve(), args.data.resolve()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print("there is no CUDA device; --quick --device cpu tests the script", file=sys.stderr)
        return 2
    if args.part:
        run_part(args.part, args)
        return 0
    return 0 if run(args) else 1


if __name__ == "__main__":
    sys.exit(main())
