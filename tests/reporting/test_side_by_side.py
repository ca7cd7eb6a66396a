"""Rows at equal cost, against what their records hold there."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from altprop.reporting.side_by_side import Comparison, cells, comparisons, csv_comparisons
from altprop.reporting.tables import latex_comparisons, markdown_comparisons, print_comparisons
from tests.reporting.test_report import rows_of, write_run

MODEL = {"_target_": "models.MLP", "hidden": [8], "units": {"_target_": "ReLU"}}
CONFIG: dict[str, Any] = {"model": MODEL, "dataset": {"label": "MNIST", "batch_size": 10}, "paper": None}


def costs(run: Path, *, seconds: float, flops: float | None) -> None:
    """Give every epoch of ``run`` these costs."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        record["time/train_seconds"] = seconds * record["epoch"]
        del record["cost/flops"]
        if flops is not None:
            record["cost/flops"] = flops * record["epoch"]
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def found(tmp_path: Path) -> Comparison:
    """A cheap algorithm of four epochs (1 s, 1e9 each), and a dear one of two (3 s, 4e9), with other units, over two seeds."""
    costs(write_run(tmp_path, "cheap", "00000000000a", [10.0, 20.0, 30.0, 40.0], config=CONFIG), seconds=1, flops=1e9)
    other = {**CONFIG, "model": {**MODEL, "units": {"_target_": "SignStep"}}}
    for seed, key in enumerate(("00000000000b", "00000000000c")):
        values = [60.0 + 2 * seed, 70.0 + 2 * seed]
        costs(write_run(tmp_path, "dear", key, values, seed=seed, config=other), seconds=3, flops=4e9)
    wider = {**CONFIG, "model": {**MODEL, "hidden": [9]}}
    write_run(tmp_path, "elsewhere", "00000000000d", [99.0], config=wider)
    write_run(tmp_path, "failing", "00000000000e", [1.0], config=CONFIG, status="failed")
    (comparison,) = comparisons(rows_of(tmp_path))
    return comparison


def means(comparison: Comparison, cost: str) -> list[float | None]:
    return [value.mean if (value := values[cost]) else None for values in comparison.values]


def test_values_at_the_largest_cost_that_all_reached(found: Comparison) -> None:
    assert [row.name for row in found.rows] == ["cheap", "dear"]
    assert found.budgets == {"epochs": 2, "seconds": 4, "flops": 4e9}
    assert means(found, "epochs") == [20, 71]
    assert means(found, "seconds") == [40, 61]  # the dear one's second epoch ends after 6 s
    assert means(found, "flops") == [40, 61]


def test_a_cost_that_a_run_did_not_record_is_left_out_and_one_without_an_early_record_has_no_value(tmp_path: Path) -> None:
    costs(write_run(tmp_path, "old", "00000000000a", [10.0, 20.0], config=CONFIG), seconds=1, flops=None)
    costs(write_run(tmp_path, "slow", "00000000000b", [50.0, 60.0], config=CONFIG), seconds=9, flops=1.0)
    (comparison,) = comparisons(rows_of(tmp_path))
    assert comparison.budgets == {"epochs": 2, "seconds": 2, "flops": None}
    assert means(comparison, "seconds") == [20, None]
    titles, lines = cells(comparison)
    assert titles[3:] == ["at 2 epochs", "at 2.0 s of training"]
    assert [line[3:] for line in lines] == [["20.00", "20.00"], ["60.00", "–"]]  # noqa: RUF001


def test_every_form_shows_them(found: Comparison) -> None:
    stream = io.StringIO()
    print_comparisons([found], Console(file=stream, width=180))
    for text in (stream.getvalue(), markdown_comparisons([found])):
        assert "Side by side at equal cost: MLP on MNIST, test/accuracy" in text
        assert "at 4e+09 FLOPs" in text
        assert "61.00 ± 1.41" in text
    table = latex_comparisons([found])
    assert r"dear &  & 2 & 71.00 $\pm$ 1.41 & 61.00 $\pm$ 1.41 & 61.00 $\pm$ 1.41 \\" in table
    lines = list(csv.DictReader(io.StringIO(csv_comparisons([found]))))
    assert [(line["experiment"], line["equal"], float(line["budget"]), float(line["mean"])) for line in lines][3:] == [
        ("dear", "epochs", 2, 71),
        ("dear", "seconds", 4, 61),
        ("dear", "flops", 4e9, 61),
    ]
    assert markdown_comparisons([]) == latex_comparisons([]) == ""
