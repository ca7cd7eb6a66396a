"""Searches for learning rates: the validation split chooses, and the figure shows what it chose."""

from __future__ import annotations

from pathlib import Path

from altprop.reporting.figures.costs import half_widths, legend_entry
from altprop.reporting.figures.report_figures import draw
from altprop.reporting.searches import learning_rate, searches
from altprop.reporting.statistics import statistic
from tests.reporting.fixtures import PNG, read_records, rows_of, write_records, write_run


def write_search(outputs: Path, group: str | None = "field/digits") -> None:
    """Two signals at two rates, three seeds. For signal a, the rate that is better on the test split is worse on validation."""
    number = 0
    for name, results in {
        "field/a": {0.1: (90.0, 80.0), 0.01: (85.0, 88.0)},
        "field/b": {0.1: (70.0, 75.0), 0.01: (60.0, 65.0)},
    }.items():
        for rate, (test, validation) in results.items():
            for seed in range(3):
                config = {"group": group, "optimizer": {"lr": rate, "weight_decay": 0.0}, "paper": None}
                accuracies = [test - 10.0, test + seed]
                run = write_run(outputs, name, f"{number:012d}", accuracies, seed=seed, config=config)
                records = read_records(run)
                write_records(run, [{**record, "validation/accuracy": validation + seed} for record in records])
                number += 1


def test_the_validation_split_chooses_each_rate(tmp_path: Path) -> None:
    write_search(tmp_path)
    (chosen,) = searches(rows_of(tmp_path)).values()
    assert {row.name: learning_rate(row) for row in chosen} == {"field/a": 0.01, "field/b": 0.1}
    assert [len(row.finished) for row in chosen] == [3, 3]


def test_runs_of_no_sweep_or_at_one_rate_are_no_search(tmp_path: Path) -> None:
    write_search(tmp_path / "alone", group=None)
    assert searches(rows_of(tmp_path / "alone")) == {}
    for number, name in enumerate(("field/a", "field/b")):
        config = {"group": "field/digits", "optimizer": {"lr": 0.1}, "paper": None}
        run = write_run(tmp_path / "one", name, f"{number:012d}", [90.0], config=config)
        write_records(run, [{**record, "validation/accuracy": 80.0} for record in read_records(run)])
    assert searches(rows_of(tmp_path / "one")) == {}


def test_the_figure_shows_the_chosen_rows_with_their_intervals(tmp_path: Path) -> None:
    write_search(tmp_path / "outputs")
    rows = rows_of(tmp_path / "outputs")
    figures = draw(rows, [], tmp_path / "figures")
    assert figures["field/digits: accuracy over cost"].read_bytes().startswith(PNG)
    row = next(row for row in searches(rows)["field/digits"] if row.name == "field/a")
    assert row.curve is not None
    expected = statistic([85.0, 86.0, 87.0])
    assert expected is not None
    assert expected.high is not None
    assert abs(half_widths(row.curve)[-1] - (expected.high - expected.mean)) < 1e-9
    assert legend_entry(row, row.curve) == "a, rate 0.01: 86 ± 2.5"
