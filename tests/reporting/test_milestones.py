"""Published values after some epochs next to what runs had by then."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from altprop.config.compose import compose
from altprop.reporting.milestones import Milestone, milestones
from altprop.reporting.rows import paper_of
from altprop.reporting.tables.build import milestone_tables
from altprop.reporting.tables.render import csv_text, latex, markdown, print_table
from tests.reporting.fixtures import PAPER, rows_of, write_run


@pytest.fixture
def reached(tmp_path: Path) -> list[Milestone]:
    """A finished run of three epochs, one that has reached its second, and a failed one; milestones at 1, 3 and 9 epochs."""
    points = {"test/accuracy": [[1, 75.5], [3, 90], [9, 99]], "test/unknown": [[1, 2.0]]}
    config = {"paper": {**PAPER, "milestones": points}}
    write_run(tmp_path, "a/row", "00000000000a", [80.0, 85.0, 90.5], seed=0, config=config)
    write_run(tmp_path, "a/row", "00000000000b", [70.0, 80.0], seed=1, config=config, status="running")
    write_run(tmp_path, "a/row", "00000000000c", [10.0], seed=2, config=config, status="failed")
    write_run(tmp_path, "b/row", "00000000000d", [10.0])
    return milestones(rows_of(tmp_path))


def test_values_are_those_of_runs_that_came_this_far(reached: list[Milestone]) -> None:
    assert [(each.row.name, each.metric, each.epoch, each.published) for each in reached] == [
        ("a/row", "test/accuracy", 1, 75.5),
        ("a/row", "test/accuracy", 3, 90),
    ]
    assert [(each.ours.count, each.ours.mean) for each in reached] == [(2, 75.0), (1, 90.5)]


def test_every_format_contains_the_milestones(reached: list[Milestone]) -> None:
    (table,), stream = milestone_tables(reached), io.StringIO()
    print_table(table, Console(file=stream, width=100))
    for text in (stream.getvalue(), markdown([table]), latex([table])):
        for cell in ("Milestones", "75.00", "7.07", "75.5", "-0.50", "+0.50"):
            assert cell in text
    assert r"a/row & test/accuracy & 3 & 1 & 90.50 & 90 & +0.50 \\" in latex([table])
    first, second = csv.DictReader(io.StringIO(csv_text([table])))
    assert (first["experiment"], float(first["epoch"]), first["count"], float(first["difference"])) == ("a/row", 1, "2", -0.5)
    assert (float(second["mean"]), second["std"], float(second["paper"])) == (90.5, "", 90)
    assert milestone_tables([]) == []


def test_changes_are_shown_next_to_the_published_value(tmp_path: Path) -> None:
    config = {"paper": {**PAPER, "milestones": {"test/accuracy": [[1, 75.5]]}}}
    write_run(tmp_path, "a/row", "00000000000a", [80.0], config=config, command=["trainer.duration=1ep"], status="running")
    (table,), stream = milestone_tables(milestones(rows_of(tmp_path))), io.StringIO()
    print_table(table, Console(file=stream, width=100))
    for text in (stream.getvalue(), markdown([table]), latex([table]), csv_text([table])):
        assert "trainer.duration=1ep" in text


@pytest.mark.parametrize(("name", "last"), [("dni_bp", 84.47), ("dni_dni", 64.74), ("dni_cdni", 80.86), ("dni_dgl", 85.05)])
def test_the_published_value_of_a_log_is_its_last_one(name: str, last: float) -> None:
    config = OmegaConf.to_container(compose([f"experiment=dgl/{name}", "paths.data=data", "paths.outputs=runs"]), resolve=True)
    assert isinstance(config, dict)
    paper = paper_of({str(key): value for key, value in config.items()})
    assert paper is not None
    assert (paper.value, paper.seeds) == (last, 1)
    assert paper.milestones["test/accuracy"][-1][1] == last
    assert paper.milestones["test/accuracy"][-1][0] <= int(config["trainer"]["duration"].removesuffix("ep"))
