"""Sweeps with a search: the runs after it, what their trials chose, and what the tables and the figure say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from altprop.reporting.curves import mean_curve
from altprop.reporting.figures.costs import half_widths, legend_entry, limits
from altprop.reporting.figures.report_figures import draw
from altprop.reporting.searches import VALIDATION, angles, at_the_end, is_trial, learning_rate, searches
from altprop.reporting.statistics import statistic
from altprop.reporting.tables.build import search_tables
from altprop.reporting.tables.render import csv_text, markdown
from tests.reporting.fixtures import PNG, read_records, rows_of, write_records, write_run


def write_search(outputs: Path, *, finals: bool = True, failed: bool = False) -> None:
    """Two signals with a trial at two rates and three runs at the better one; the second signal's run is twice as long."""
    number = 0

    def write(name: str, rate: float, seed: int, when: str, validation: list[float], status: str = "done") -> None:
        nonlocal number
        number += 1
        config: dict[str, Any] = {
            "group": "field/digits",
            "paper": None,
            "optimizer": {"lr": rate},
            "trainer": {"evaluate_test": when},
            "dataset": {"label": "digits"},
            "model": {"_target_": "m.MLP" if name == "field/a" else "m.EnergyMLP"},
        }
        if when == "end":
            config["model"] |= {"weights_from": None}  # an option that is younger than the trials
        run = write_run(outputs, name, f"{number:012d}", validation, seed=seed, config=config, status=status)
        records = read_records(run)
        for record, value in zip(records, validation, strict=True):
            del record["test/accuracy"]
            record[VALIDATION] = value
        if when == "end":
            records[-1] |= {"test/accuracy": validation[-1] - 2.0}
            records.append(
                {"epoch": records[-1]["epoch"], "step": 1, "alignment/angle/0": 60.0, "alignment/angle/2": 10.0 + seed}
            )
            records[-2:] = reversed(records[-2:])
        write_records(run, records)

    for name, results, length in (("field/a", {0.1: 80.0, 0.01: 88.0}, 2), ("field/b", {0.1: 75.0, 0.01: 65.0}, 4)):
        for rate, validation in results.items():
            write(name, rate, 100, "never", [validation], "failed" if failed and rate == 0.01 else "done")
        if finals:
            best = max(results, key=lambda rate: results[rate])
            for seed in range(3):
                write(name, best, seed, "end", [50.0 + epoch + seed for epoch in range(1, length + 1)])


def test_the_rows_are_the_runs_after_the_search_with_their_trials(tmp_path: Path) -> None:
    write_search(tmp_path)
    rows = rows_of(tmp_path)
    assert sum(map(is_trial, rows)) == 4
    (search,) = searches(rows)
    assert search.group == "field/digits"
    assert [(row.name, learning_rate(row), len(row.finished)) for row in search.rows] == [
        ("field/b", 0.1, 3),
        ("field/a", 0.01, 3),
    ]
    assert [[learning_rate(trial) for trial in trials] for trials in search.trials] == [[0.01, 0.1], [0.01, 0.1]]


def test_rows_of_different_models_are_compared_on_validation_at_equal_cost(tmp_path: Path) -> None:
    write_search(tmp_path)
    (search,) = searches(rows_of(tmp_path))
    assert search.comparison is not None
    assert search.comparison.metric == VALIDATION
    assert search.comparison.budgets == {"epochs": 2.0, "seconds": 4.0, "flops": 1e10}
    for values in search.comparison.values:
        assert {value.mean if value else None for value in values.values()} == {53.0}


def test_a_group_without_runs_after_its_trials_is_no_search(tmp_path: Path) -> None:
    write_search(tmp_path, finals=False)
    assert searches(rows_of(tmp_path)) == []


@pytest.mark.parametrize("failed", [False, True])
def test_the_table_shows_trials_test_accuracy_cost_and_angles(tmp_path: Path, failed: bool) -> None:
    write_search(tmp_path, failed=failed)
    (table,) = search_tables(searches(rows_of(tmp_path)))
    titles = [column.title for column in table.columns]
    b = dict(zip(titles, (cell.text for cell in table.rows[0]), strict=True))
    assert b["experiment"].startswith("field/b")
    assert b["rate"] == "0.1"
    assert b["validation accuracy of the trials"] == ("0.01: failed, 0.1: 75.00" if failed else "0.01: 65.00, 0.1: 75.00")
    assert b["test accuracy at the end"] == "53.00 ± 1.00"
    assert b["validation at 2 epochs"] == b["validation at 4.0 s of training"] == b["validation at 1e+10 FLOPs"] == "53.00 ± 1.00"
    assert b["angle of each layer"] == "60°, 11°"
    assert table.records[0]["angles"] == "0:60.0 2:11.0"
    assert "Search and results: field/digits" in markdown([table])
    assert "field/b" in csv_text([table])


def test_the_figure_shows_validation_over_cost_and_the_test_accuracy_in_the_legend(tmp_path: Path) -> None:
    write_search(tmp_path / "outputs")
    rows = rows_of(tmp_path / "outputs")
    figures = draw(rows, [], searches(rows), tmp_path / "figures")
    assert figures["field/digits: accuracy over cost"].read_bytes().startswith(PNG)
    row = searches(rows)[0].rows[1]
    curve = mean_curve([run.records for run in row.finished], VALIDATION)
    expected = statistic([52.0, 53.0, 54.0])
    assert curve is not None
    assert expected is not None
    assert expected.high is not None
    assert abs(half_widths(curve)[-1] - (expected.high - expected.mean)) < 1e-9
    assert at_the_end(row, "test/accuracy") == statistic([50.0, 51.0, 52.0])
    assert legend_entry(row) == "a, rate 0.01: 51 ± 2.5"


def test_the_axis_of_accuracies_shows_where_lines_end() -> None:
    assert limits(90.0, 98.0) == (86.0, 99.0)
    assert limits(99.9, 99.9) == (98.9, 100.0)
    assert limits(0.5, 0.5) == (0.0, 1.0)


def test_angles_are_in_forward_order_if_the_first_gradients_of_early_layers_are_late(tmp_path: Path) -> None:
    write_search(tmp_path / "outputs")
    row = searches(rows_of(tmp_path / "outputs"))[0].rows[0]
    first, last = {"alignment/angle/2": 5.0}, {"alignment/angle/0": 7.0, "alignment/angle/2": 0.0}
    run = replace(row.finished[0], records=[first, last])
    assert list(angles(replace(row, finished=[run]))) == ["0", "2"]
