"""Rows over seeds against numbers calculated by hand, and the runs that they are made of."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from altprop.commands.report import group_function
from altprop.reporting.epochs import best_record
from altprop.reporting.rows import collect_rows, variant_of
from altprop.reporting.runs import changed_overrides, read_runs
from altprop.reporting.statistics import statistic
from altprop.reporting.tables.columns import memory
from altprop.reporting.tables.notes import messages_about_runs, summary
from tests.reporting.fixtures import read_records, rows_of, write_records, write_run


def test_a_row_against_numbers_calculated_by_hand(outputs: Path) -> None:
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


def test_paper_value_outside_the_interval_and_no_interval_for_one_seed(outputs: Path) -> None:
    wide = write_run(outputs, "c/far", "000000000010", [80.0, 80.0], seed=0)
    alone, *_ = [row for row in rows_of(outputs) if row.name == "c/far"]
    assert (alone.difference, alone.inside) == (-10.5, None)
    write_run(outputs, "c/far", "000000000011", [80.0, 80.2], seed=1)
    pair, *_ = [row for row in rows_of(outputs) if row.name == "c/far"]
    assert pair.inside is False
    assert wide.exists()


def test_last_selected_or_best_is_compared(outputs: Path) -> None:
    for seed, key in enumerate(("000000000020", "000000000021")):
        write_run(outputs, "d/selected", key, [95.0, 85.0, 80.0], seed=seed, best={"epoch": 2.0, "test/accuracy": 85.0})
    for compared, value in {"last": 80.0, "selected": 85.0, "best": 95.0}.items():
        row, *_ = [row for row in rows_of(outputs, compared=compared) if row.name == "d/selected"]
        assert row.difference == pytest.approx(value - 90.5)


def test_a_metric_other_than_the_papers_is_not_compared_with_it(outputs: Path) -> None:
    row, _ = rows_of(outputs, metric="time/elapsed")
    assert row.last is not None
    assert row.last.mean == 9.0
    assert (row.difference, row.inside) == (None, None)


def test_different_configurations_are_different_rows_named_by_what_differs(outputs: Path) -> None:
    for number, rate in enumerate((0.1, 0.1, 0.5)):
        config = {"optimizer": {"lr": rate, "momentum": 0.9}, "trainer": {"threads": number, "probe_every": number}}
        write_run(outputs, "e/rates", f"00000000003{number}", [10.0], seed=number, config=config)
    first, second = [row for row in rows_of(outputs) if row.name == "e/rates"]
    assert (first.seeds, second.seeds) == ([0, 1], [2])
    assert (first.variant, second.variant) == ("optimizer.lr=0.1", "optimizer.lr=0.5")


def test_a_different_class_is_named_without_its_own_keys() -> None:
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


def test_messages_about_runs_are_counted_and_named(outputs: Path) -> None:
    (outputs / "x" / "broken").mkdir(parents=True)
    (outputs / "x" / "broken" / "config.yaml").write_text("a: [")
    (outputs / "x" / "bare").mkdir()
    (outputs / "x" / "bare" / "status.json").write_text("{}")
    corrupt = write_run(outputs, "x/corrupt", "000000000040", [1.0, 2.0])
    (corrupt / "metrics.jsonl").write_text('{"epoch": 1}\nnonsense\n{"epoch": 2}\n')
    runs, unreadable = read_runs(outputs)
    rows = collect_rows(runs, group_function(runs))
    lines = "\n".join(messages_about_runs(rows, unreadable, outputs))
    assert "failed: a/row/00000000000d (seed 3): RunFailed: out of memory, after 1 of 3 epochs" in lines
    assert "unfinished: a/row/00000000000e (seed 4): running, 2 of 3 epochs, last updated 2026-01-01" in lines
    assert "not counted: x/bare: config.yaml is missing" in lines
    assert "not counted: x/broken: " in lines
    assert "line 2: not a record" in lines
    assert summary(rows, unreadable) == "2 rows; runs: 4 finished, 1 unfinished, 1 failed, 3 not readable"


def test_a_run_that_never_started_and_an_older_copy_of_a_run(outputs: Path) -> None:
    directory = write_run(outputs, "y/new", "000000000050", [])
    for name in ("status.json", "metrics.jsonl", "meta.json"):
        (directory / name).unlink()
    older = write_run(outputs / "copy", "a/row", "00000000000a", [1.0, 1.0, 1.0], updated_at="2025-01-01")
    runs, unreadable = read_runs(outputs)
    rows = collect_rows(runs, group_function(runs))
    assert [run.status for row in rows if row.name == "y/new" for run in row.unfinished] == ["not started"]
    assert [entry.path for entry in unreadable] == [older]
    assert rows[0].last is not None
    assert rows[0].last.mean == 91.0


def test_best_epoch_of_a_binary_network_is_one_in_which_it_was_binary() -> None:
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


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "from the configuration"])
def test_epochs_before_the_last_prune_are_neither_best_nor_selected(tmp_path: Path, recorded: bool) -> None:
    weights = {"_target_": "rules.IterativePruning", "start_epoch": 1, "every_epochs": 2, "iterations": 2, "sparsity": 0.9}
    config = {"algorithm": {"weights": {} if recorded else weights}}
    for seed, (key, epoch) in enumerate({"00000000000a": 3.0, "00000000000b": 5.0}.items()):
        accuracies = [99.0, 98.0, 97.0, 80.0 + seed, 90.0 + seed, 85.0]
        best = {"epoch": epoch, "test/accuracy": accuracies[int(epoch) - 1]}
        run = write_run(tmp_path, "pruned", key, accuracies, seed=seed, config=config)
        if recorded:
            best["weights/complete"] = float(epoch >= 4)
            write_records(run, [{**each, "weights/complete": float(each["epoch"] >= 4)} for each in read_records(run)])
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
def test_the_interval_is_that_of_student(values: list[float]) -> None:
    result = statistic(values)
    assert result is not None
    assert result.std is not None
    if result.std > 1e-9:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=result.mean, scale=result.std / math.sqrt(len(values)))
        assert (result.low, result.high) == pytest.approx((low, high), rel=1e-6, abs=1e-6)
    assert result.contains(result.mean)


def test_a_diverged_run_makes_the_mean_nan() -> None:
    result = statistic([90.0, math.nan])
    assert result is not None
    assert math.isnan(result.mean)
    assert result.contains(90.0) is False
    assert statistic([]) is None


def test_overrides_that_change_the_computation() -> None:
    command = ["train.py", "-m", "experiment=a/row", "seed=0,1", "trainer.threads=1", "trainer.duration=2ep", "+model/units=relu"]
    assert changed_overrides(command) == ["trainer.duration=2ep", "+model/units=relu"]


def test_early_stopping_is_reported(tmp_path: Path) -> None:
    write_run(tmp_path, "a/row", "00000000000a", [80.0], stopped_early="stopped early at epoch 1: validation/loss")
    assert messages_about_runs(rows_of(tmp_path), [], tmp_path) == [
        "stopped early at epoch 1: validation/loss: a/row/00000000000a (seed 0)"
    ]
