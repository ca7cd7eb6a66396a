"""Comparisons of rows at equal cost, against the values in their records."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from altprop.config.compose import compose
from altprop.reporting.comparisons import TRAINING_KEYS, Comparison, comparisons, excluded
from altprop.reporting.runs import read_runs
from altprop.reporting.tables.build import comparison_table
from altprop.reporting.tables.render import csv_text, latex, markdown, print_table
from tests.reporting.fixtures import read_records, rows_of, write_records, write_run

MODEL = {"_target_": "models.MLP", "hidden": [8], "units": {"_target_": "ReLU"}}
CONFIG: dict[str, Any] = {"model": MODEL, "dataset": {"label": "MNIST", "batch_size": 10}, "paper": None}


def set_costs(run: Path, *, seconds: float, flops: float | None) -> None:
    """Give every epoch of ``run`` these costs."""
    records = read_records(run)
    for record in records:
        record["time/train_seconds"] = seconds * record["epoch"]
        del record["cost/flops"]
        if flops is not None:
            record["cost/flops"] = flops * record["epoch"]
    write_records(run, records)


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    """A cheap run of four epochs (1 s, 1e9 FLOPs each), and two expensive ones of two epochs (3 s, 4e9) with other units."""
    set_costs(write_run(tmp_path, "cheap", "00000000000a", [10.0, 20.0, 30.0, 40.0], config=CONFIG), seconds=1, flops=1e9)
    other = {**CONFIG, "model": {**MODEL, "units": {"_target_": "SignStep"}}}
    for seed, key in enumerate(("00000000000b", "00000000000c")):
        values = [60.0 + 2 * seed, 70.0 + 2 * seed]
        set_costs(write_run(tmp_path, "expensive", key, values, seed=seed, config=other), seconds=3, flops=4e9)
    wider = {**CONFIG, "model": {**MODEL, "hidden": [9]}}
    write_run(tmp_path, "elsewhere", "00000000000d", [99.0], config=wider)
    write_run(tmp_path, "failing", "00000000000e", [1.0], config=CONFIG, status="failed")
    (result,) = comparisons(rows_of(tmp_path))
    return result


def means(comparison: Comparison, cost: str) -> list[float | None]:
    return [value.mean if (value := values[cost]) else None for values in comparison.values]


def test_values_at_the_largest_cost_that_all_runs_reached(comparison: Comparison) -> None:
    assert [row.name for row in comparison.rows] == ["cheap", "expensive"]
    assert comparison.budgets == {"epochs": 2, "seconds": 4, "flops": 4e9}
    assert means(comparison, "epochs") == [20, 71]
    assert means(comparison, "seconds") == [40, 61]  # the expensive one's second epoch ends after 6 s
    assert means(comparison, "flops") == [40, 61]


def test_unrecorded_costs_are_left_out_and_runs_without_an_early_record_have_no_value(tmp_path: Path) -> None:
    set_costs(write_run(tmp_path, "old", "00000000000a", [10.0, 20.0], config=CONFIG), seconds=1, flops=None)
    set_costs(write_run(tmp_path, "slow", "00000000000b", [50.0, 60.0], config=CONFIG), seconds=9, flops=1.0)
    (comparison,) = comparisons(rows_of(tmp_path))
    assert comparison.budgets == {"epochs": 2, "seconds": 2, "flops": None}
    assert means(comparison, "seconds") == [20, None]
    table = comparison_table(comparison)
    assert [column.title for column in table.columns[3:]] == ["at 2 epochs", "at 2.0 s of training"]
    assert [[cell.text for cell in row[3:]] for row in table.rows] == [["20.00", "20.00"], ["60.00", "–"]]  # noqa: RUF001


def test_every_format_contains_the_values(comparison: Comparison) -> None:
    table, stream = comparison_table(comparison), io.StringIO()
    print_table(table, Console(file=stream, width=180))
    for text in (stream.getvalue(), markdown([table])):
        assert "Side by side at equal cost: MLP on MNIST, test/accuracy" in text
        assert "at 4e+09 FLOPs" in text
        assert "61.00 ± 1.41" in text
    lines = latex([table]).splitlines()
    assert r"expensive &  & 2 & 71.00 $\pm$ 1.41 & 61.00 $\pm$ 1.41 & 61.00 $\pm$ 1.41 \\" in lines
    values = list(csv.DictReader(io.StringIO(csv_text([table]))))
    assert [(each["experiment"], each["equal"], float(each["budget"]), float(each["mean"])) for each in values][3:] == [
        ("expensive", "epochs", 2, 71),
        ("expensive", "seconds", 4, 61),
        ("expensive", "flops", 4e9, 61),
    ]


def pruned_after_dense(folder: Path, state: str, **options: Any) -> list[Comparison]:
    """A dense run of four epochs (1 s, 1e9 FLOPs each), one of five, and one of two that starts from ``state`` of the first."""
    dense = write_run(folder, "dense", "00000000000a", [10.0, 20.0, 30.0, 40.0], config=CONFIG)
    set_costs(dense, seconds=1, flops=1e9)
    set_costs(write_run(folder, "other", "00000000000b", [1.0, 2.0, 3.0, 4.0, 5.0], config=CONFIG), seconds=1, flops=1e9)
    weights = {
        "weights_from": str(dense / "checkpoints" / state),
        "mask_from": str(dense / "checkpoints" / "initial.pt"),
        **options,
    }
    pruned = {**CONFIG, "algorithm": {"weights": weights}}
    set_costs(write_run(folder, "pruned", "00000000000c", [60.0, 70.0], config=pruned), seconds=3, flops=4e9)
    return comparisons(rows_of(folder))


@pytest.mark.parametrize(
    ("state", "epochs", "values"),
    [
        ("last.pt", (None, None, None), (4, 4, 4)),
        ("epoch-2.pt", (70, None, None), (4, 4, 4)),
        ("initial.pt", (70, 60, 60), (2, 4, 4)),
    ],
)
def test_costs_include_those_of_what_a_run_started_from(tmp_path: Path, state: str, epochs: object, values: object) -> None:
    (comparison,) = pruned_after_dense(tmp_path, state)
    assert tuple(comparison.budgets[name] / unit for name, unit in (("epochs", 1), ("seconds", 1), ("flops", 1e9))) == values
    assert tuple(means(comparison, name)[2] for name in ("epochs", "seconds", "flops")) == epochs
    remarks = [] if state == "initial.pt" else [f"pruned ({'4' if state == 'last.pt' else '2'} epochs)"]
    assert [remark.partition(": ")[2].rstrip(".") for remark in comparison.remarks] == remarks


def test_indirect_predecessors_count_and_each_counts_once(tmp_path: Path) -> None:
    pruned_after_dense(tmp_path, "last.pt")
    both = {
        name: f"elsewhere/pruned/00000000000c/checkpoints/{file}.pt"
        for name, file in (("weights_from", "best"), ("mask_from", "last"))
    }
    last = {**CONFIG, "algorithm": {"weights": both}}
    set_costs(write_run(tmp_path, "third", "00000000000d", [80.0], config=last), seconds=1, flops=1e9)
    comparison, *_ = comparisons([row for row in rows_of(tmp_path) if row.name in ("third", "pruned")], read_runs(tmp_path)[0])
    assert comparison.budgets == {"epochs": 6, "seconds": 10, "flops": 12e9}  # 4 dense and 2 pruned; the third has 7, 11 and 13
    assert means(comparison, "epochs") == [70, None]


def test_a_row_whose_predecessor_is_not_found_is_left_out_and_named(tmp_path: Path) -> None:
    pruned_after_dense(tmp_path, "last.pt", weights_from="/gone/dense/0123456789ab/checkpoints/last.pt")
    rows = rows_of(tmp_path)
    (comparison,) = comparisons(rows)
    assert [row.name for row in comparison.rows] == ["dense", "other"]
    (line,) = excluded(rows)
    assert line.startswith("not side by side: pruned: a run that it started from is not below paths.outputs")
    few = [row for row in rows if row.name != "other"]
    assert comparisons(few) == []
    assert excluded(few) == [line]
    assert excluded(few[1:]) == []


def test_a_network_that_is_not_yet_pruned_has_no_value(tmp_path: Path) -> None:
    set_costs(write_run(tmp_path, "short", "00000000000a", [50.0, 51.0], config=CONFIG), seconds=1, flops=1e9)
    rule = {"_target_": "rules.IterativePruning", "start_epoch": 0, "every_epochs": 2, "iterations": 2}
    config = {**CONFIG, "algorithm": {"weights": rule}}
    set_costs(write_run(tmp_path, "pruned", "00000000000b", [99.0, 98.0, 60.0, 70.0], config=config), seconds=0.5, flops=1e9)
    (comparison,) = comparisons(rows_of(tmp_path))
    assert [row.name for row in comparison.rows] == ["pruned", "short"]
    assert means(comparison, "epochs") == [None, 51]
    assert means(comparison, "seconds") == [70, 51]


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (
            ("ddg_resnet110_bp", "ddg_resnet110_ddg_k2", "ddg_resnet110_ddg_k4", "ddg_resnet110_dgl_k2"),
            "dataset.mean, dataset.std, model.linear_init",
        ),
        (("imagenet_vgg13_bp", "imagenet_vgg13_k4", "imagenet_vgg13_k10"), "model.dropout"),
        (
            tuple(
                f"quick_{name}" for name in ("asynchronous_greedy", "decoupled_greedy", "delayed_gradients", "features_replay")
            ),
            "dataset.drop_last",
        ),
    ],
)
def test_rows_of_one_published_table_are_compared(tmp_path: Path, names: tuple[str, ...], keys: str) -> None:
    for place, name in enumerate(names):
        config = OmegaConf.to_container(
            compose([f"experiment=dgl/{name}", "paths.data=data", "paths.outputs=runs"]), resolve=True
        )
        assert isinstance(config, dict)
        write_run(
            tmp_path, f"dgl/{name}", f"0000000000a{place}", [50.0], config={str(key): value for key, value in config.items()}
        )
    (comparison,) = comparisons(rows_of(tmp_path))
    assert {row.name for row in comparison.rows} == {f"dgl/{name}" for name in names}
    assert comparison.remarks == [f"The rows also differ in {keys}."]


def test_comparisons_of_networks_of_one_class_have_distinct_titles(tmp_path: Path) -> None:
    for place, width in enumerate((8, 8, 9, 9)):
        model = {**MODEL, "hidden": [width], "dropout": 0.1 * place}
        write_run(tmp_path, f"row{place}", f"00000000000{place}", [50.0], config={**CONFIG, "model": model})
    titles = [comparison.title for comparison in comparisons(rows_of(tmp_path))]
    assert titles == ["MLP on MNIST (model.hidden=[8])", "MLP on MNIST (model.hidden=[9])"]
    assert "dropout" in TRAINING_KEYS


def test_remarks_are_in_every_format(comparison: Comparison) -> None:
    assert comparison.remarks == ["The rows also differ in model.units."]
    table, stream = comparison_table(comparison), io.StringIO()
    print_table(table, Console(file=stream, width=180))
    for text in (stream.getvalue(), markdown([table]), latex([table])):
        assert comparison.remarks[0] in text
