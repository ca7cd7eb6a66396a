"""Train what the documents report, store the accuracies in ``measured.json``, and write them into the documents.

    python docs/results/measure.py                              every short run that a document names; about half an hour
    python docs/results/measure.py "dgl/quick_delayed_gradients"       this one; an id is an experiment and further overrides
    python docs/results/measure.py --write                      train nothing, write the documents from measured.json

A document marks a number with ``<!-- measured: <id> -->…<!-- end -->``: the mean ± standard deviation over seeds. After the id,
``; values`` shows one number per seed, ``; counted`` the number of seeds in parentheses, and ``; mean <metric>`` another metric,
such as ``test/readout/accuracy``. The table of quick experiments is between ``<!-- table of quick experiments -->`` and
``<!-- end of table -->``. Seeds are 0, 1, 2, with one torch thread. The table after
``<!-- table of sweep=field/<name> -->`` comes from ``field_<name>.csv``, which report.py wrote as ``searches.csv``.

The runs are in ``outputs/measured/<commit>``, so a command that was interrupted resumes. Entries with ``long: true`` take
hours; they are only measured if their id is given.
"""

from __future__ import annotations

import csv
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
STORE = Path(__file__).with_name("measured.json")
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "algorithms").glob("*.md")))
MARKER = re.compile(
    r"<!-- measured: (?P<id>[^;]+?)(?:; (?P<style>mean|counted|values)(?: (?P<metric>[\w/]+))?)? -->(?P<text>.*?)<!-- end -->",
    re.S,
)
TABLE = re.compile(r"(<!-- table of quick experiments -->\n).*?(<!-- end of table -->)", re.S)
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
"""The rows of the table of quick experiments. ``dsr/quick_prune`` starts from the runs of ``dsr/quick_dense``."""

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
    if values is None:  # of runs whose single values were not kept
        digits = entry.get("digits", 2)
        spread = "" if entry["count"] == 1 else f" ± {entry['std']:.{digits}f}"
        return f"{entry['mean']:.{digits}f}{spread}" + (f" ({entry['count']})" if style == "counted" else "")
    if style == "values":
        return ", ".join(f"{value:.1f}" for value in values)
    return f"{statistics.fmean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def quick_table(store: Store) -> str:
    """The table of quick experiments, two per row."""
    cells = [f"| `{name}` | {shown(store[name], 'mean')} |" for name in QUICK]
    half = (len(cells) + 1) // 2
    pairs = zip(cells[:half], [*cells[half:], *["| | |"] * (2 * half - len(cells))])
    head = "| experiment | test accuracy | | experiment | test accuracy |\n|---|---|---|---|---|\n"
    return head + "".join(f"{left} {right}\n" for left, right in pairs)


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
    return TABLE.sub(lambda match: match[1] + quick_table(store) + match[2], text)


def short_runs(store: Store) -> list[str]:
    """The ids in the table and in every marker, without those that take hours."""
    named = [match["id"] for document in DOCUMENTS for match in marked(document.read_text())]
    return [name for name in dict.fromkeys((*QUICK, *named)) if not store.get(name, {}).get("long")]


def measure(name: str) -> Entry:
    """Train the run ``name`` with every seed, and return its entry."""
    import altprop

    commit = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    outputs = ROOT / "outputs" / "measured" / commit
    fixed = ("trainer.threads=1", "trainer.device=cpu", "trainer.figures=false", "~logger", f"paths.outputs={outputs}")
    words = [*(f"experiment={word}" if index == 0 else word for index, word in enumerate(name.split())), *fixed]
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
        "command": f"python train.py -m {' '.join(words[: len(name.split())])} seed=0,1,2 trainer.threads=1",
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
