"""The table of results in every format, read back; and tables in general."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from altprop.reporting.tables.build import results_table, terminal_tables
from altprop.reporting.tables.columns import PUBLISHED, duration
from altprop.reporting.tables.notes import mixed_rows, summary
from altprop.reporting.tables.render import csv_text, latex, markdown, print_table
from altprop.reporting.tables.table import Cell, Column, Table
from tests.reporting.fixtures import read_records, rows_of, write_records, write_run


def printed(tables: Sequence[Table], width: int) -> str:
    """``tables`` as printed on a terminal of ``width`` characters, separated by blank lines."""
    texts = []
    for table in tables:
        stream = io.StringIO()
        print_table(table, Console(file=stream, width=width))
        texts.append(stream.getvalue())
    return "\n".join(texts)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1"])
def test_a_spreadsheet_executes_no_name(text: str) -> None:
    table = Table(columns=[Column("name")], rows=[], records=[{"name": text, "value": -1.5}])
    [record] = csv.DictReader(io.StringIO(csv_text([table])))
    assert record == {"name": f"'{text}", "value": "-1.5"}


def test_markdown_holds_no_html_of_others() -> None:
    text = "<script>alert(1)</script>"
    table = Table(columns=[Column(text)], rows=[[Cell(text)]], title=text, notes=[text], messages=[text])
    assert "<" not in markdown([table])


def test_every_format_of_a_small_table() -> None:
    table = Table(
        columns=[Column("name", numeric=False), Column("value")],
        rows=[[Cell("a|b"), Cell("1 %", 1.0)], [Cell("c\\d"), Cell("–")]],  # noqa: RUF001
        title="A title",
        notes=["A note."],
        messages=["a message", "another"],
        records=[{"name": "a|b", "value": 1.25}, {"name": "c", "value": None}],
    )
    assert printed([table], width=40).splitlines() == [
        *("A title", "name  value", "a|b     1 %", "c\\d       –"),  # noqa: RUF001
        *("A note.", "a message", "another"),
    ]
    assert markdown([table, table]).split("\n\n### A title\n\n")[1].splitlines() == [
        *("| name | value |", "|---|---:|", r"| a\|b | 1 % |", r"| c\\d | – |"),  # noqa: RUF001
        *("", "A note.", "", "- a message", "- another"),
    ]
    assert latex([table]).splitlines() == [
        *("% A title", "% A note.", "% a message", "% another", r"\begin{tabular}{lr}", r"\toprule", r"name & value \\"),
        *(r"\midrule", r"a|b & 1 \% \\", r"c\textbackslash{}d & -- \\", r"\bottomrule", r"\end{tabular}"),
    ]
    assert csv_text([table, table]).splitlines() == ["name,value", "a|b,1.25", "c,", "a|b,1.25", "c,"]
    assert markdown([]) == latex([]) == ""


def session(code: str, threads: int) -> dict[str, object]:
    return {"code": {"altprop": code}, "threads": threads}


def test_rows_of_different_code_or_threads_are_marked(tmp_path: Path) -> None:
    write_run(tmp_path, "a/same", "00000000000a", [90.0], meta={"sessions": [session("aaa", 1)]})
    write_run(tmp_path, "a/same", "00000000000b", [91.0], seed=1, meta={"sessions": [session("aaa", 1)]})
    write_run(tmp_path, "a/code", "00000000000c", [90.0], meta={"sessions": [session("aaa", 1)]})
    write_run(tmp_path, "a/code", "00000000000d", [91.0], seed=1, meta={"sessions": [session("bbb", 1)]})
    write_run(tmp_path, "a/resumed", "00000000000e", [90.0], meta={"sessions": [session("aaa", 1), session("aaa", 2)]})
    write_run(tmp_path, "a/old", "00000000000f", [90.0])
    rows = rows_of(tmp_path)
    assert {row.name: row.mixed for row in rows} == {"a/same": "", "a/code": "code", "a/resumed": "threads", "a/old": ""}
    assert mixed_rows(rows) == [
        "mixed code (*): a/code: seed 0: altprop aaa, seed 1: altprop bbb",
        "mixed threads (*): a/resumed: seed 0: 1, then 2",
    ]
    cells = {row["experiment"]: row["mixed"] for row in csv.DictReader(io.StringIO(csv_text([results_table(rows)])))}
    assert cells == {"a/same": "", "a/code": "code", "a/resumed": "threads", "a/old": ""}
    assert "| a/code | " in markdown([results_table(rows, ("experiment", "seeds"))])
    assert "2* |" in markdown([results_table(rows, ("experiment", "seeds"))])


def test_a_report_without_published_numbers_has_no_columns_for_them(tmp_path: Path) -> None:
    """A row that names its paper and table, but has no value, is compared with nothing."""
    unread = {"paper": {"reference": "Somebody & al. (2020)", "table": "Table 1", "metric": "test/accuracy", "value": None}}
    write_run(tmp_path, "a/unread", "00000000000a", [90.0], config=unread)
    tables = terminal_tables(rows_of(tmp_path))
    titles = [column.title for table in [*tables, results_table(rows_of(tmp_path))] for column in table.columns]
    assert not {"paper", "difference", "inside", "paper's table"} & set(titles)
    assert "Somebody" not in printed(tables, width=200)
    write_run(tmp_path, "a/read", "00000000000b", [90.0])
    shown = terminal_tables(rows_of(tmp_path))[0]
    assert [column.title for column in shown.columns] == ["experiment", "seeds", "last epoch", "paper", "difference", "epochs"]
    complete = results_table(rows_of(tmp_path))
    assert [column.title for column in complete.columns][:5] == ["experiment", "seeds", "last epoch", "paper", "difference"]
    assert [row[3].text for row in complete.rows] == ["90.5 ± 0.2", "–"]  # noqa: RUF001


def test_costs_are_in_every_format(tmp_path: Path) -> None:
    cost = {"flops": 2_340_000_000_000, "peak_memory": {"bytes": 321_000_000, "of": "tensors on the GPU"}, "parameters": 1000}
    run = write_run(tmp_path, "a/row", "00000000000a", [90.0], **cost)
    counts = {"weights/nonzero_parameters": 800, "weights/binary_weights": 640}
    write_records(run, [{**record, **counts} for record in read_records(run)])
    rows = rows_of(tmp_path)
    table = results_table(rows)
    for text in (printed(terminal_tables(rows), width=260), markdown([table]), latex([results_table(rows, PUBLISHED)])):
        for cell in ("2.34e+12", "321 MB (tensors on the GPU)", "1,000", "800", "640"):
            assert cell in text
    line = next(csv.DictReader(io.StringIO(csv_text([table]))))
    assert [line[name] for name in ("flops", "peak_memory", "peak_memory_of", "parameters", "nonzero", "binary_weights")] == [
        "2340000000000",
        "321000000",
        "tensors on the GPU",
        "1000",
        "800",
        "640",
    ]
    assert summary(rows, []) == "1 row; runs: 1 finished"


def test_csv_contains_every_number_in_full(outputs: Path) -> None:
    first, second = csv.DictReader(io.StringIO(csv_text([results_table(rows_of(outputs))])))
    assert (first["experiment"], first["seeds"], first["finished"], first["failed"]) == ("a/row", "0 1 2", "3", "1")
    assert float(first["last_mean"]) == 91.0
    assert float(first["last_high"]) == pytest.approx(91 + 4.302652729911275 / math.sqrt(3))
    assert (first["paper_value"], first["paper_table"], first["inside"]) == ("90.5", "Table 1, 50 %", "True")
    assert (second["last_std"], second["paper_value"], second["difference"]) == ("", "", "")


def test_markdown_has_one_line_per_row(outputs: Path) -> None:
    lines = markdown([results_table(rows_of(outputs), notes=["A note."], messages=["failed: x"])]).splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert len(table) == 4
    assert len({len(cells) for cells in table}) == 1
    first = dict(zip(table[0], table[2]))
    assert (first["experiment"], first["last epoch"], first["paper"]) == ("a/row", "91.00 ± 1.00", "90.5 ± 0.2")
    assert (first["inside"], first["not finished"]) == ("yes", "1 failed, 1 unfinished")
    assert lines[-4:] == ["", "A note.", "", "- failed: x"]


def test_latex_has_a_cell_per_column_and_escapes_special_characters(outputs: Path) -> None:
    text = latex([results_table(rows_of(outputs), PUBLISHED)])
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    columns = text.partition(r"\begin{tabular}{")[2].partition("}")[0]
    assert [len(line.replace(r"\&", "").split("&")) for line in body] == [len(columns)] * 3
    assert r"b/under\_score" in text
    assert r"Somebody \& al. (2020), Table 1, 50 \%" in text
    assert r"91.00 $\pm$ 1.00" in text
    assert not set("".join(body).replace("±", "!")) & {"!", "–"}  # noqa: RUF001
    assert text.index(r"\toprule") < text.index(r"\midrule") < text.index(r"\bottomrule")


def test_terminal_shows_results_comparison_with_paper_and_costs(outputs: Path) -> None:
    results, details, costs = printed(terminal_tables(rows_of(outputs)), width=120).split("\n\n")
    header, first, second = results.splitlines()
    assert header.split()[:6] == ["experiment", "seeds", "last", "epoch", "paper", "difference"]
    assert first.split()[:9] == ["a/row", "3", "91.00", "±", "1.00", "90.5", "±", "0.2", "+0.50"]
    assert "1 failed, 1 unfinished" in first
    assert second.split()[0] == "b/under_score"
    assert "trainer.duration=3ep" in details
    assert "Somebody" in details
    line = costs.splitlines()[1]
    assert line.split() == ["a/row", "9.0", "s", "500", "1.5e+10", "1.50", "GB", "(process)", "12,345"]


def test_latex_contains_changes_costs_and_unfinished_runs(outputs: Path) -> None:
    text = latex([results_table(rows_of(outputs), PUBLISHED, messages=["failed: a/row: out of\nmemory"])])
    table = text[text.index(r"\toprule") :]
    for cell in ("trainer.duration=3ep", "9.0 s", "500", "1 failed, 1 unfinished", "changed by the command"):
        assert cell in table
    assert "% failed: a/row: out of memory\n" in text


@pytest.mark.parametrize(("seconds", "text"), [(41.23, "41.2 s"), (59.9, "1:00 min"), (725, "12:05 min"), (12000, "3:20 h")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_columns_are_chosen_and_ordered_in_every_format(outputs: Path) -> None:
    table = results_table(rows_of(outputs), ["last", "experiment"])
    assert [column.title for column in table.columns] == ["last epoch", "experiment"]
    assert csv_text([table]).splitlines()[0] == "last,experiment"
    assert markdown([table]).splitlines()[0] == "| last epoch | experiment |"


def test_an_interval_of_accuracies_ends_at_100(tmp_path: Path) -> None:
    write_run(tmp_path, "a/high", "00000000000a", [99.9])
    write_run(tmp_path, "a/high", "00000000000b", [98.0], seed=1)
    (row,) = rows_of(tmp_path)
    assert row.last is not None
    assert row.last.high == 100.0
    assert row.last.low is not None
    assert row.last.low < 98.0


def test_rows_are_named_by_what_their_commands_changed(tmp_path: Path) -> None:
    digits = {"dataset": {"_target_": "altprop.data.MNIST", "mean": [0.1], "std": [0.3], "batch_size": 100}}
    shapes = {"dataset": {"_target_": "altprop.data.Shapes", "mean": [0.5], "std": [0.2], "batch_size": 50}}
    write_run(tmp_path, "scratch", "00000000000a", [90.0], config=digits, command=["trainer.duration=1ep"])
    write_run(tmp_path, "scratch", "00000000000b", [90.0], config=shapes, command=["trainer.duration=1ep", "dataset=shapes"])
    assert [row.label for row in rows_of(tmp_path)] == ["scratch", "scratch dataset=shapes"]
