"""Train what the documents report, store the accuracies in ``measured.json``, and write them into the documents.

    python docs/results/measure.py                              every short run that a document names; about an hour
    python docs/results/measure.py "dgl/quick_delayed_gradients"       this one; an id is an experiment, if any, and overrides
    python docs/results/measure.py --write                      train nothing, write the documents from measured.json

A document marks a number with ``<!-- measured: <id> -->…<!-- end -->``: the mean ± standard deviation over seeds. After the id,
``; values`` shows one number per seed, ``; range`` the lowest and highest, ``; counted`` the number of seeds in parentheses, and
``; mean <metric>`` another metric, such as ``test/readout/accuracy``, or ``test/accuracy@3`` after the third epoch. Numbers
that were not measured here, as those of papers, are in ``<!-- not ours -->…<!-- end -->`` or in a column or row named published.

The tables in ``TABLES`` are between ``<!-- table of <name> -->`` and ``<!-- end of table -->``. Seeds are 0, 1, 2, with one torch
thread. The table after ``<!-- table of sweep=field/<name> -->`` comes from ``field_<name>.csv``, which report.py wrote as
``searches.csv``.

The runs are in ``outputs/measured/<commit>``, so a command that was interrupted resumes. Entries with ``long: true`` take
hours; they are only measured if their id is given. Entries without ``cpu`` were copied from the documents in which the numbers of
these runs had been recorded when the store was made; their commits are those of the runs.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
STORE = Path(__file__).with_name("measured.json")
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "algorithms").glob("*.md")))
MARKER = re.compile(
    r"<!-- measured: (?P<id>[^;]+?)(?:; (?P<style>mean|counted|values|range)(?: (?P<metric>[\w/@]+))?)? -->"
    r"(?P<text>.*?)<!-- end -->",
    re.S,
)
TABLE = re.compile(r"(<!-- table of ([a-z ]+) -->\n).*?(<!-- end of table -->)", re.S)
FIELD = re.compile(r"(<!-- table of sweep=field/(\w+) -->\n).*?(<!-- end of table -->)", re.S)
SEEDS = (0, 1, 2)
ACCURACY = "test/accuracy"
QUICK = (
    *("ftprop/quick_step_sh", "ftprop/quick_q2_sste"),
    *("eqprop/quick_mlp_ep", "eqprop/quick_mlp_cep", "eqprop/quick_mlp_bptt"),
    *("iterative/quick", "iterative/quick_binary", "iterative/quick_float"),
    *(
        "dsr/quick_dense",
        "dsr/quick_dynamic",
        "dsr/quick_set",
        "dsr/quick_deepr",
        "dsr/quick_rigl",
        "dsr/quick_tied",
        "dsr/quick_prune",
    ),
    *("dgl/quick_decoupled_greedy", "dgl/quick_sequential_greedy", "dgl/quick_asynchronous_greedy"),
    *("dgl/quick_delayed_gradients", "dgl/quick_features_replay", "dgl/quick_synthetic_gradients"),
    *("field/quick_feedback_alignment", "field/quick_direct_feedback_alignment", "field/quick_difference_target_propagation"),
    *("field/quick_predictive_coding", "field/quick_forward_forward", "field/quick_n_of_m"),
    "field/quick_structured_rigl",
)
"""The rows of the table of quick experiments."""
STARTS_FROM = {"dsr/quick_prune": "dsr/quick_dense"}
"""Experiments whose runs start from those of another one, with the same seeds."""
SPARSITIES = (0.8, 0.9, 0.95, 0.98)
SPARSE = {"dynamic": "dynamic", "set": "SET", "deepr": "DeepR", "static": "static", "tied": "tied", "prune": "pruned"}
SIGNALS = {
    "backprop": "backprop",
    "target_propagation": "target propagation",
    "decoupled_greedy": "decoupled greedy",
    "delayed_gradients": "delayed gradients",
}
WEIGHTS = {"dense": "dense", "dynamic_sparse": "dynamic sparse, 0.9", "iterative_binary": "binary, a layer per epoch"}

Entry = Mapping[str, Any]
Store = dict[str, Entry]


def read_store() -> Store:
    """The stored entries by id."""
    return json.loads(STORE.read_text()) if STORE.exists() else {}


def write_store(store: Store) -> None:
    """Write the entries, one per line."""
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(store[name])}" for name in sorted(store))
    STORE.write_text(f"{{\n{lines}\n}}\n")


def marked(text: str) -> Iterator[re.Match[str]]:
    """The marked numbers of a document."""
    return MARKER.finditer(text)


def shown(entry: Entry, style: str, metric: str | None = None) -> str:
    """What a document shows for ``entry``."""
    values = (entry.get("values") or {}).get(metric or ACCURACY)
    digits = entry.get("digits", 1 if values else 2)
    if style == "range":
        low, high = (min(values), max(values)) if values else entry["ranges"][metric or ACCURACY]
        return f"{low:.{digits}f} to {high:.{digits}f}"
    if style == "values" and values:
        return ", ".join(f"{value:.{digits}f}" for value in values)
    if values:
        mean, deviation, count = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values)
    else:  # of runs whose single values were not kept
        mean, deviation, count = entry["mean"], entry["std"], entry["count"]
    spread = "" if count == 1 else f" ± {deviation:.{digits}f}"
    return f"{mean:.{digits}f}{spread}" + (f" ({count})" if style == "counted" else "")


def quick_table(store: Store) -> str:
    """The table of quick experiments, two per row."""
    cells = [f"| `{name}` | {shown(store[name], 'mean')} |" for name in QUICK]
    half = (len(cells) + 1) // 2
    pairs = zip(cells[:half], [*cells[half:], *["| | |"] * (2 * half - len(cells))])
    head = "| experiment | test accuracy | | experiment | test accuracy |\n|---|---|---|---|---|\n"
    return head + "".join(f"{left} {right}\n" for left, right in pairs)


def sweep_ids(sweep: str) -> Iterator[tuple[dict[str, str], str]]:
    """The overrides of every run of ``sweep=<sweep>`` without its seed, as a mapping and as an id."""
    params = yaml.safe_load((ROOT / "conf" / "sweep" / f"{sweep}.yaml").read_text())["hydra"]["sweeper"]["params"]
    choices = [str(value).replace(" ", "").split(",") for key, value in params.items() if key != "seed"]
    for values in itertools.product(*choices):
        overrides = dict(zip((key for key in params if key != "seed"), values, strict=True))
        yield overrides, " ".join(f"{key}={value}" for key, value in overrides.items())


def pairs_table(store: Store) -> str:
    """The table of ``sweep=quick/graded_units`` and ``sweep=quick/hard_units``, a signal and its units per row."""
    lines = [["signal", "units", *WEIGHTS.values()], ["---"] * (2 + len(WEIGHTS))]
    for sweep, units, rule in (("quick/graded_units", "ReLU", ""), ("quick/hard_units", "sign", ", soft hinge")):
        cells: dict[str, dict[str, str]] = {}
        for overrides, name in sweep_ids(sweep):
            cells.setdefault(overrides["algorithm"], {})[overrides["algorithm/weights"]] = shown(store[name], "mean")
        lines += [[SIGNALS[signal] + rule, units, *(row[weights] for weights in WEIGHTS)] for signal, row in cells.items()]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def sparse_id(method: str, sparsity: float) -> str:
    """The id of a quick experiment of a sparse rule at ``sparsity``."""
    return f"dsr/quick_{method} algorithm.weights.sparsity={sparsity}"


def sparsities_table(store: Store) -> str:
    """The table of the accuracy of every sparse rule at every sparsity on the digits."""
    lines = [["sparsity", *SPARSE.values()], ["---"] * (1 + len(SPARSE))]
    lines += [
        [str(sparsity), *(shown(store[sparse_id(method, sparsity)], "mean") for method in SPARSE)] for sparsity in SPARSITIES
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


TABLES: dict[str, tuple[Callable[[Store], str], tuple[str, ...]]] = {
    "quick experiments": (quick_table, QUICK),
    "signals and weights": (
        pairs_table,
        tuple(name for sweep in ("graded", "hard") for _, name in sweep_ids(f"quick/{sweep}_units")),
    ),
    "sparsities": (sparsities_table, tuple(sparse_id(method, sparsity) for method in SPARSE for sparsity in SPARSITIES)),
}
"""What draws each table and the ids that it shows, in the order in which they are trained."""


def field_table(name: str) -> str:
    """The table of ``sweep=field/<name>``, one signal per row, best test accuracy first."""
    with STORE.with_name(f"field_{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    epochs, seconds, flops = (float(rows[0][f"equal_{cost}"]) for cost in ("epochs", "seconds", "flops"))
    head = [
        *("signal", "rate", "tried: validation", "test accuracy", "95 % interval"),
        *(
            f"validation, {epochs:g} epoch{'s' * (epochs != 1)}",
            f"validation, {seconds:.1f} s",
            f"validation, {1e-9 * flops:.0f} GFLOPs",
        ),
        *("time", "GFLOPs", "peak memory", "angle of each layer"),
    ]
    lines = [head, ["---"] * len(head), *map(_field_cells, rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _field_cells(row: Mapping[str, str]) -> list[str]:
    trials = [trial.split(":") for trial in row["tried"].split()]
    tried = ", ".join(f"{rate}: {value if value == 'failed' else f'{float(value):.1f}'}" for rate, value in trials)
    at_equal_cost = [row[f"validation_at_equal_{cost}"] for cost in ("epochs", "seconds", "flops")]
    return [
        row["experiment"].removeprefix("field/").replace("_", " "),
        row["rate"],
        tried,
        f"{float(row['test_mean']):.2f} ± {float(row['test_std']):.2f} ({row['count']})",
        f"{float(row['test_low']):.2f} to {float(row['test_high']):.2f}",
        *(f"{float(value):.2f}" if value else "-" for value in at_equal_cost),
        f"{float(row['seconds']):.0f} s",
        f"{1e-9 * float(row['flops']):,.0f}",
        f"{1e-6 * float(row['peak_memory']):.0f} MB",
        ", ".join(f"{float(layer.rpartition(':')[2]):.0f}°" for layer in row["angles"].split()),
    ]


def documented(text: str, store: Store) -> str:
    """``text`` with every marked number and table as they are in ``store``."""

    def number(match: re.Match[str]) -> str:
        value = shown(store[match["id"]], match["style"] or "mean", match["metric"])
        return match[0].replace(f"-->{match['text']}<!--", f"-->{value}<!--")

    text = MARKER.sub(number, text)
    text = FIELD.sub(lambda match: match[1] + field_table(match[2]) + match[3], text)
    return TABLE.sub(lambda match: match[1] + TABLES[match[2]][0](store) + match[3], text)


def short_runs(store: Store) -> list[str]:
    """The ids in the tables and in every marker, without those that take hours."""
    shown_in_tables = [name for _, names in TABLES.values() for name in names]
    named = [match["id"] for document in DOCUMENTS for match in marked(document.read_text())]
    return [name for name in dict.fromkeys((*shown_in_tables, *named)) if not store.get(name, {}).get("long")]


def measure(name: str) -> Entry:
    """Train the run ``name`` with every seed, and return its entry."""
    import altprop

    commit = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    outputs = ROOT / "outputs" / "measured" / commit
    fixed = ("trainer.threads=1", "trainer.device=cpu", "trainer.figures=false", "~logger", f"paths.outputs={outputs}")
    words = [word if "=" in word else f"experiment={word}" for word in name.split()]
    keys = {word.partition("=")[0] for word in words}
    words += [word for word in fixed if word.partition("=")[0] not in keys]
    if first := STARTS_FROM.get(name.split()[0]):
        for seed in SEEDS:
            altprop.train(f"experiment={first}", *fixed, f"seed={seed}")  # nothing is trained if it is there
    runs = [altprop.train(*words, f"seed={seed}") for seed in SEEDS]
    metrics = [key for key in runs[0].last if key.startswith("test/") and key.endswith("accuracy")]
    meta = json.loads((runs[0].directory / "meta.json").read_text())
    return {
        "values": {metric: [round(run.last[metric], 4) for run in runs] for metric in metrics},
        "seeds": list(SEEDS),
        "threads": meta["threads"],
        "device": meta["device"],
        "cpu": meta["cpu"]["model"],
        "torch": meta["versions"]["torch"],
        "commit": commit + ("+" if meta["code"]["altprop"]["dirty"] else ""),
        "command": f"python train.py -m {' '.join(words[: len(name.split())])} seed=0,1,2"
        + ("" if "trainer.threads" in keys else " trainer.threads=1"),
    }


def main(arguments: list[str]) -> None:
    """Train the runs that ``arguments`` name, by default every short one, and write the documents."""
    store = read_store()
    for name in [] if arguments == ["--write"] else arguments or short_runs(store):
        store = {**read_store(), name: measure(name)}
        write_store(store)
        print(f"{name}: {shown(store[name], 'values')}", flush=True)
    for document in DOCUMENTS:
        text = document.read_text()
        if (new := documented(text, store)) != text:
            document.write_text(new)


if __name__ == "__main__":
    main(sys.argv[1:])
