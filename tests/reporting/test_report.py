"""Rows over seeds against numbers worked out by hand, and every form of the table read back."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from altprop.commands.report import chosen, group_function
from altprop.problems import ConfigError
from altprop.reporting.collect import Row, collect, variant_of
from altprop.reporting.epochs import best_record
from altprop.reporting.runs import changes, read_runs
from altprop.reporting.statistics import statistic
from altprop.reporting.tables.columns import duration, memory
from altprop.reporting.tables.render import csv_table, latex, markdown, print_table, summary, troubles

PAPER = {"reference": "Somebody & al. (2020)", "table": "Table 1, 50 %", "metric": "test/accuracy", "value": 90.5, "std": 0.2}


def write_run(
    outputs: Path,
    name: str,
    key: str,
    accuracies: Sequence[float],
    *,
    seed: int = 0,
    status: str = "done",
    config: dict[str, Any] | None = None,
    command: Sequence[str] = (),
    **fields: Any,
) -> Path:
    """A run directory as ``train.py`` leaves it: one record per epoch, each 100 steps of 10 images, 2 s of training, 5 GFLOPs."""
    directory = outputs / name / key
    directory.mkdir(parents=True)
    content = {"name": name, "seed": seed, "paper": {**PAPER, "seeds": 5}, "paths": {"outputs": str(outputs)}, **(config or {})}
    (directory / "config.yaml").write_text(yaml.safe_dump(content))
    times = [
        {"time/train_seconds": 2.0 * epoch, "time/elapsed": 3.0 * epoch, "cost/flops": 5e9 * epoch}
        for epoch in range(1, len(accuracies) + 1)
    ]
    records = [
        {"epoch": float(epoch), "step": 100 * epoch, "test/accuracy": value, "time/images_per_second": 500.0, **timed}
        for epoch, (value, timed) in enumerate(zip(accuracies, times), start=1)
    ]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    state = {"status": status, "name": name, "key": key, "epoch": len(accuracies), "total_epochs": 3, "updated_at": "2026-01-01"}
    (directory / "status.json").write_text(json.dumps({**state, **fields}))
    (directory / "meta.json").write_text(json.dumps({"command": ["train.py", *command], "device": "cpu"}))
    return directory


def rows_of(outputs: Path, **options: Any) -> list[Row]:
    runs, _ = read_runs(outputs)
    return collect(runs, group_function(runs), **options)


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Three finished seeds of one row, one that failed, one that still runs; and a row of another experiment."""
    cost = {"flops": 15_000_000_000, "peak_memory": {"bytes": 1_500_000_000, "of": "process"}}
    write_run(tmp_path, "a/row", "00000000000a", [80.0, 92.0, 90.0], seed=0, parameters=12345, **cost)
    write_run(tmp_path, "a/row", "00000000000b", [82.0, 90.0, 91.0], seed=1, command=["seed=1", "trainer.duration=3ep"])
    write_run(tmp_path, "a/row", "00000000000c", [84.0, 91.0, 92.0], seed=2)
    write_run(tmp_path, "a/row", "00000000000d", [70.0], seed=3, status="failed", error="RunFailed: out of memory")
    write_run(tmp_path, "a/row", "00000000000e", [71.0, 99.0], seed=4, status="running")
    write_run(tmp_path, "b/under_score", "00000000000f", [50.0, 60.0, 55.0], config={"paper": None})
    (tmp_path / "latest").symlink_to("a/row/00000000000a")
    return tmp_path


def test_a_row_against_numbers_worked_out_by_hand(outputs: Path) -> None:
    row, _ = rows_of(outputs)
    assert row.seeds == [0, 1, 2]
    assert row.last is not None
    assert (row.last.count, row.last.mean, row.last.std) == (3, 91.0, 1.0)
    half = 4.302652729911275 / math.sqrt(3)  # t of 2 degrees of freedom at 97.5 %, from a table
    assert row.last.low == pytest.approx(91 - half)
    assert row.last.high == pytest.approx(91 + half)
    assert row.best is not None
    assert row.best.mean == pytest.approx((92 + 91 + 92) / 3)
    assert row.best_epoch is not None
    assert row.best_epoch.mean == pytest.approx((2 + 3 + 3) / 3)
    assert row.selected is None
    assert row.difference == pytest.approx(0.5)
    assert row.inside is True
    assert row.seconds is not None
    assert row.seconds.mean == 9.0
    assert row.images_per_second is not None
    assert row.images_per_second.mean == 500.0
    assert row.parameters == 12345
    assert row.flops is not None
    assert row.flops.mean == 15e9
    assert (memory(row), row.peak_memory_of) == ("1.50 GB (process)", "process")
    assert row.changed == "trainer.duration=3ep"
    assert row.curve is not None
    assert row.curve.epochs == [1, 2, 3]
    assert row.curve.seconds == [2.0, 4.0, 6.0]
    assert row.curve.flops == [5e9, 10e9, 15e9]
    assert row.curve.mean == pytest.approx([82.0, 91.0, 91.0])
    assert row.curve.std == pytest.approx([2.0, 1.0, 1.0])


def test_a_paper_outside_the_interval_and_one_seed_without_an_interval(outputs: Path) -> None:
    wide = write_run(outputs, "c/far", "000000000010", [80.0, 80.0], seed=0)
    alone, *_ = [row for row in rows_of(outputs) if row.name == "c/far"]
    assert (alone.difference, alone.inside) == (-10.5, None)
    write_run(outputs, "c/far", "000000000011", [80.0, 80.2], seed=1)
    pair, *_ = [row for row in rows_of(outputs) if row.name == "c/far"]
    assert pair.inside is False
    assert wide.exists()


def test_selected_and_best_are_compared_where_asked(outputs: Path) -> None:
    for seed, key in enumerate(("000000000020", "000000000021")):
        write_run(outputs, "d/chosen", key, [95.0, 85.0, 80.0], seed=seed, best={"epoch": 2.0, "test/accuracy": 85.0})
    for compared, value in {"last": 80.0, "selected": 85.0, "best": 95.0}.items():
        row, *_ = [row for row in rows_of(outputs, compared=compared) if row.name == "d/chosen"]
        assert row.difference == pytest.approx(value - 90.5)


def test_another_metric_than_the_papers_is_not_held_against_it(outputs: Path) -> None:
    row, _ = rows_of(outputs, metric="time/elapsed")
    assert row.last is not None
    assert row.last.mean == 9.0
    assert (row.difference, row.inside) == (None, None)


def test_configurations_are_kept_apart_and_named_by_what_differs(outputs: Path) -> None:
    for number, rate in enumerate((0.1, 0.1, 0.5)):
        config = {"optimizer": {"lr": rate, "momentum": 0.9}, "trainer": {"threads": number, "probe_every": number}}
        write_run(outputs, "e/rates", f"00000000003{number}", [10.0], seed=number, config=config)
    first, second = [row for row in rows_of(outputs) if row.name == "e/rates"]
    assert (first.seeds, second.seeds) == ([0, 1], [2])
    assert (first.variant, second.variant) == ("optimizer.lr=0.1", "optimizer.lr=0.5")


def test_another_class_is_named_without_the_keys_that_it_alone_has() -> None:
    rule = {"_target_": "package.rules.Sparse", "sparsity": 0.9}
    configs: list[dict[str, object]] = [
        {"algorithm": {"_target_": "package.Backprop", "weights": rule}, "optimizer": {"lr": 0.1}},
        {"algorithm": {"_target_": "package.Greedy", "heads": 3, "weights": rule}, "optimizer": {"lr": 0.1}},
        {"algorithm": {"_target_": "package.Greedy", "heads": 5, "weights": rule}, "optimizer": {"lr": 0.2}},
    ]
    assert [variant_of(config, configs) for config in configs] == [
        "algorithm=Backprop optimizer.lr=0.1",
        "algorithm=Greedy algorithm.heads=3 optimizer.lr=0.1",
        "algorithm=Greedy algorithm.heads=5 optimizer.lr=0.2",
    ]
    assert variant_of(configs[1], configs[1:]) == "algorithm.heads=3 optimizer.lr=0.1"


def test_runs_that_start_from_runs_of_their_own_seed_are_one_row(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path, "dense", f"0000000000a{seed}", [90.0], seed=seed)
        weights = {"weights_from": f"{tmp_path}/dense/0000000000a{seed}/checkpoints/last.pt"}
        write_run(tmp_path, "pruned", f"0000000000b{seed}", [80.0], seed=seed, config={"algorithm": {"weights": weights}})
    assert [(row.name, row.seeds) for row in rows_of(tmp_path)] == [("dense", [0, 1]), ("pruned", [0, 1])]


def test_runs_that_do_not_count_are_counted_and_named(outputs: Path) -> None:
    (outputs / "x" / "broken").mkdir(parents=True)
    (outputs / "x" / "broken" / "config.yaml").write_text("a: [")
    (outputs / "x" / "bare").mkdir()
    (outputs / "x" / "bare" / "status.json").write_text("{}")
    torn = write_run(outputs, "x/torn", "000000000040", [1.0, 2.0])
    (torn / "metrics.jsonl").write_text('{"epoch": 1}\nnonsense\n{"epoch": 2}\n')
    runs, unreadable = read_runs(outputs)
    rows = collect(runs, group_function(runs))
    lines = "\n".join(troubles(rows, unreadable, outputs))
    assert "failed: a/row/00000000000d (seed 3): RunFailed: out of memory, after 1 of 3 epochs" in lines
    assert "unfinished: a/row/00000000000e (seed 4): running, 2 of 3 epochs, last sign 2026-01-01" in lines
    assert "not counted: x/bare: config.yaml is missing" in lines
    assert "not counted: x/broken: " in lines
    assert "line 2: not a record" in lines
    assert summary(rows, unreadable) == "2 rows; runs: 4 finished, 1 unfinished, 1 failed, 3 not readable"


def test_a_run_that_never_started_and_a_copy_of_a_run(outputs: Path) -> None:
    directory = write_run(outputs, "y/new", "000000000050", [])
    for name in ("status.json", "metrics.jsonl", "meta.json"):
        (directory / name).unlink()
    older = write_run(outputs / "copy", "a/row", "00000000000a", [1.0, 1.0, 1.0], updated_at="2025-01-01")
    runs, unreadable = read_runs(outputs)
    rows = collect(runs, group_function(runs))
    assert [run.status for row in rows if row.name == "y/new" for run in row.unfinished] == ["not started"]
    assert [entry.path for entry in unreadable] == [older]
    assert rows[0].last is not None
    assert rows[0].last.mean == 91.0


def test_the_best_epoch_of_binary_networks_is_one_in_which_they_were_binary() -> None:
    records = [
        {"epoch": epoch, "test/accuracy": value, "weights/fully_binary": binary}
        for epoch, value, binary in [(1, 99.0, 0.0), (2, 90.0, 1.0), (3, 95.0, 1.0), (4, 95.0, 1.0)]
    ]
    best = best_record(records, "test/accuracy", {})
    assert best is not None
    assert best["epoch"] == 3
    assert best_record(records[:1], "test/accuracy", {}) is None
    losses = [{"epoch": 1, "test/loss": 2.0}, {"epoch": 2, "test/loss": 1.0}, {"epoch": 3, "test/loss": math.nan}]
    lowest = best_record(losses, "test/loss", {})
    assert lowest is not None
    assert lowest["epoch"] == 2


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "told by the configuration"])
def test_an_epoch_before_the_last_prune_is_neither_the_best_nor_the_selected_one(tmp_path: Path, recorded: bool) -> None:
    weights = {"_target_": "rules.IterativePruning", "start_epoch": 1, "every_epochs": 2, "iterations": 2, "sparsity": 0.9}
    config = {"algorithm": {"weights": {} if recorded else weights}}
    for seed, (key, epoch) in enumerate({"00000000000a": 3.0, "00000000000b": 5.0}.items()):
        accuracies = [99.0, 98.0, 97.0, 80.0 + seed, 90.0 + seed, 85.0]
        best = {"epoch": epoch, "test/accuracy": accuracies[int(epoch) - 1]}
        run = write_run(tmp_path, "pruned", key, accuracies, seed=seed, config=config)
        if recorded:
            best["weights/complete"] = float(epoch >= 4)
            records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            records = [{**record, "weights/complete": float(record["epoch"] >= 4)} for record in records]
            (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        state = json.loads((run / "status.json").read_text())
        (run / "status.json").write_text(json.dumps({**state, "best": best}))
    (row,) = rows_of(tmp_path, compared="best")
    assert row.best is not None
    assert row.best_epoch is not None
    assert row.selected is not None
    assert (row.best.mean, row.best_epoch.mean) == (90.5, 5)
    assert (row.selected.count, row.selected.mean) == (1, 91)
    assert row.difference == 0


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=12))
def test_the_interval_is_students(values: list[float]) -> None:
    found = statistic(values)
    assert found is not None
    assert found.std is not None
    if found.std > 1e-9:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=found.mean, scale=found.std / math.sqrt(len(values)))
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6, abs=1e-6)
    assert found.holds(found.mean)


def test_a_diverged_run_shows_in_the_mean() -> None:
    found = statistic([90.0, math.nan])
    assert found is not None
    assert math.isnan(found.mean)
    assert found.holds(90.0) is False
    assert statistic([]) is None


def test_what_a_run_cost_stands_in_every_table(tmp_path: Path) -> None:
    cost = {"flops": 2_340_000_000_000, "peak_memory": {"bytes": 321_000_000, "of": "tensors on the GPU"}, "parameters": 1000}
    directory = write_run(tmp_path, "a/row", "00000000000a", [90.0], **cost)
    record = json.loads((directory / "metrics.jsonl").read_text())
    counts = {"weights/nonzero_parameters": 800, "weights/binary_weights": 640}
    (directory / "metrics.jsonl").write_text(json.dumps({**record, **counts}) + "\n")
    rows = rows_of(tmp_path)
    stream = io.StringIO()
    print_table(rows, Console(file=stream, width=260))
    for text in (stream.getvalue(), markdown(rows), latex(rows)):
        for cell in ("2.34e+12", "321 MB (tensors on the GPU)", "1,000", "800", "640"):
            assert cell in text
    line = next(csv.DictReader(io.StringIO(csv_table(rows))))
    assert [line[name] for name in ("flops", "peak_memory", "peak_memory_of", "parameters", "nonzero", "binary_weights")] == [
        "2340000000000",
        "321000000",
        "tensors on the GPU",
        "1000",
        "800",
        "640",
    ]
    assert summary(rows, []) == "1 row; runs: 1 finished"


def test_csv_holds_every_number_in_full(outputs: Path) -> None:
    first, second = csv.DictReader(io.StringIO(csv_table(rows_of(outputs))))
    assert (first["experiment"], first["seeds"], first["finished"], first["failed"]) == ("a/row", "0 1 2", "3", "1")
    assert float(first["last_mean"]) == 91.0
    assert float(first["last_high"]) == pytest.approx(91 + 4.302652729911275 / math.sqrt(3))
    assert (first["paper_value"], first["paper_table"], first["inside"]) == ("90.5", "Table 1, 50 %", "True")
    assert (second["last_std"], second["paper_value"], second["difference"]) == ("", "", "")


def test_markdown_is_a_table_with_one_line_per_row(outputs: Path) -> None:
    lines = markdown(rows_of(outputs), ["failed: x"]).splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert len(table) == 4
    assert len({len(cells) for cells in table}) == 1
    first = dict(zip(table[0], table[2]))
    assert (first["experiment"], first["last epoch"], first["paper"]) == ("a/row", "91.00 ± 1.00", "90.5 ± 0.2")
    assert (first["inside"], first["not finished"]) == ("yes", "1 failed, 1 unfinished")
    assert lines[-1] == "- failed: x"


def test_latex_has_as_many_cells_as_columns_and_no_bare_special_characters(outputs: Path) -> None:
    text = latex(rows_of(outputs))
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    columns = text.partition(r"\begin{tabular}{")[2].partition("}")[0]
    assert [len(line.replace(r"\&", "").split("&")) for line in body] == [len(columns)] * 3
    assert r"b/under\_score" in text
    assert r"Somebody \& al. (2020), Table 1, 50 \%" in text
    assert r"91.00 $\pm$ 1.00" in text
    assert not set("".join(body).replace("±", "!")) & {"!", "–"}  # noqa: RUF001
    assert text.index(r"\toprule") < text.index(r"\midrule") < text.index(r"\bottomrule")


def test_the_terminal_shows_results_the_paper_and_costs(outputs: Path) -> None:
    stream = io.StringIO()
    print_table(rows_of(outputs), Console(file=stream, width=100))
    results, against, costs = stream.getvalue().split("\n\n")
    header, first, second = results.splitlines()
    assert header.split()[:3] == ["experiment", "seeds", "epochs"]
    assert first.split()[:6] == ["a/row", "3", "3", "91.00", "±", "1.00"]
    assert "1 failed, 1 unfinished" in first
    assert second.split()[0] == "b/under_score"
    assert "90.5 ± 0.2" in against
    assert "+0.50" in against
    assert "trainer.duration=3ep" in against
    assert "Somebody" in against
    assert "under_score" not in against  # it has no paper, and nothing of it was changed
    line = costs.splitlines()[1]
    assert line.split() == ["a/row", "9.0", "s", "500", "1.5e+10", "1.50", "GB", "(process)", "12,345"]


def test_latex_says_what_was_changed_what_it_cost_and_what_did_not_finish(outputs: Path) -> None:
    text = latex(rows_of(outputs), ["failed: a/row: out of\nmemory"])
    table = text[text.index(r"\toprule") :]
    for cell in ("trainer.duration=3ep", "9.0 s", "500", "1 failed, 1 unfinished", "changed by the command"):
        assert cell in table
    assert "% failed: a/row: out of memory\n" in text


@pytest.mark.parametrize(
    ("patterns", "names"), [("*", 2), ("a/*", 1), (["a/row", "b/*"], 2), ("a/row/00000000000b", 1), ("*/under_score", 1)]
)
def test_runs_are_chosen_by_name(outputs: Path, patterns: str | list[str], names: int) -> None:
    runs, _ = read_runs(outputs)
    assert len({run.name for run in chosen(runs, patterns, None, outputs)}) == names


def test_mistakes_are_named(outputs: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    runs, _ = read_runs(outputs)
    with pytest.raises(ConfigError, match=r"runs: 'a/rwo' matches no run.*try: runs=a/row"):
        chosen(runs, "a/rwo", None, outputs)
    with pytest.raises(ConfigError, match=r"runs: is an empty list"):
        chosen(runs, [], None, outputs)
    with pytest.raises(ConfigError, match=r"group: 'g' matches no run's group"):
        chosen(runs, "*", "g", outputs)
    with pytest.raises(ConfigError, match=r"paths.outputs: there is no run below"):
        chosen([], "*", None, tmp_path_factory.mktemp("empty"))


def test_what_a_command_changed() -> None:
    command = ["train.py", "-m", "experiment=a/row", "seed=0,1", "trainer.threads=1", "trainer.duration=2ep", "+model/units=relu"]
    assert changes(command) == ["trainer.duration=2ep", "+model/units=relu"]


@pytest.mark.parametrize(("seconds", "text"), [(41.23, "41.2 s"), (59.9, "1:00 min"), (725, "12:05 min"), (12000, "3:20 h")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
