"""``report.py`` as a user types it, and its choice of runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from altprop.commands import report as report_command
from altprop.commands.main import main
from altprop.commands.report import chosen_formats, select_runs
from altprop.config.project import ROOT
from altprop.problems import ConfigError
from altprop.reporting.html.page import has_plotly
from altprop.reporting.runs import Run, read_runs
from tests.reporting.fixtures import write_run


def report(*arguments: str, outputs: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "report.py"), *arguments, f"paths.outputs={outputs}"]
    return subprocess.run(command, cwd=outputs, capture_output=True, text=True)


@pytest.mark.skipif(not has_plotly(), reason="plotly is not installed")
def test_tables_are_printed_and_written_in_every_format(tmp_path: Path) -> None:
    for seed, key in enumerate(("00000000000a", "00000000000b")):
        write_run(tmp_path, "a/row", key, [90.0 + seed], seed=seed)
    write_run(tmp_path, "b/row", "00000000000c", [10.0])
    process = report("runs=a/*", outputs=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "90.50 ± 0.71" in process.stdout
    assert "b/row" not in process.stdout
    files = sorted((tmp_path / "report").iterdir())
    assert [file.name for file in files] == ["report.csv", "report.html", "report.md", "report.tex"]
    assert all(f"written: {file}" in process.stdout and "a/row" in file.read_text() for file in files)
    process = report(f"to={tmp_path / 'elsewhere'}", "formats=csv", outputs=tmp_path)
    assert process.returncode == 0, process.stderr
    assert [file.name for file in (tmp_path / "elsewhere").iterdir()] == ["report.csv"]
    assert "3 finished" in process.stdout


@pytest.mark.parametrize("installed", [True, False])
def test_all_formats_are_those_that_can_be_written(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_command, "has_plotly", lambda: installed)
    assert chosen_formats("all") == ["markdown", "csv", "latex", *(["html"] if installed else [])]
    assert chosen_formats(["html"]) == ["html"]
    assert chosen_formats("csv") == ["csv"]


def test_runs_of_one_model_and_data_set_are_shown_side_by_side(tmp_path: Path) -> None:
    shared = {"model": {"_target_": "models.MLP"}, "dataset": {"label": "MNIST"}}
    for name, key in {"a/row": "00000000000a", "b/row": "00000000000b"}.items():
        write_run(tmp_path, name, key, [90.0, 91.0], config=shared)
    process = report("formats=[csv,markdown,latex]", "figures=true", outputs=tmp_path)
    assert process.returncode == 0, process.stderr
    files = sorted((tmp_path / "report").iterdir())
    assert [file.name for file in files] == ["figures", "report.csv", "report.md", "report.tex", "side_by_side.csv"]
    figures = sorted(str(file.relative_to(files[0])) for file in files[0].rglob("*.png"))
    assert figures == ["a/row/00000000000a/curves.png", "b/row/00000000000b/curves.png", "side_by_side_1.png"]
    for text in (process.stdout, files[2].read_text(), files[3].read_text()):
        assert "Side by side at equal cost: MLP on MNIST, test/accuracy" in text


def test_mistakes_are_reported_in_one_line_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path, "a/row", "00000000000a", [90.0])
    for argument, line in {
        "runs=a/rwo": "runs: 'a/rwo' matches no run; available: a/row; try: runs=a/row",
        "metric=test/acuracy": "metric: no run recorded 'test/acuracy'",
        "compare=worst": "compare: worst does not fit; it must be last | selected | best; try: compare=last",
        "figures=yess": "figures: yess does not fit; it must be true or false; try: figures=true",
        "formats=[pdf]": "formats: 'pdf' is not a format; must be all, or a list of markdown, csv, latex, html",
        "to=/dev/null/report": "to: cannot write to /dev/null/report",
        "to=/proc/report": "to: cannot write to /proc/report",
        "to=null": "to: null does not fit; it must be a path",
        "columns=[lats]": "columns: there is no column 'lats'; there are experiment, ",
        "columns=last": "columns: last does not fit; it must be a list of ",
    }.items():
        monkeypatch.setattr(sys, "argv", ["report.py", argument, f"paths.outputs={tmp_path}"])
        with pytest.raises(SystemExit) as leaving:
            main("report")
        printed = capsys.readouterr()
        assert (leaving.value.code, len(printed.err.splitlines())) == (2, 1), printed.err
        assert line in printed.err
        assert printed.out == ""
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(("file", "content"), [("config.yaml", "a: ["), ("metrics.jsonl", "x\n")])
def test_runs_that_are_all_damaged_are_named(
    file: str, content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path, "bad", "00000000000b", [1.0])
    (run / file).write_text(content)
    monkeypatch.setattr(sys, "argv", ["report.py", f"paths.outputs={tmp_path}"])
    with pytest.raises(SystemExit) as leaving:
        main("report")
    assert leaving.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"paths.outputs: {run} is no readable run ({'line' if file == 'config.yaml' else run}")


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    for seed, key in enumerate(("00000000000a", "00000000000b")):
        write_run(tmp_path, "a/row", key, [80.0], seed=seed)
    write_run(tmp_path, "b/under_score", "00000000000f", [50.0])
    return read_runs(tmp_path)[0]


@pytest.mark.parametrize(
    ("patterns", "count"), [("*", 3), ("a/*", 2), (["a/row", "b/*"], 3), ("a/row/00000000000b", 1), ("*/under_score", 1)]
)
def test_runs_are_selected_by_name(runs: list[Run], patterns: str | list[str], count: int, tmp_path: Path) -> None:
    assert len(select_runs(runs, patterns, None, tmp_path)) == count


def test_debug_runs_are_hidden_unless_asked_for(runs: list[Run], tmp_path: Path) -> None:
    write_run(tmp_path, "debug/fast", "0000000000dd", [10.0])
    everything, _ = read_runs(tmp_path)
    assert {run.name for run in select_runs(everything, "*", None, tmp_path)} == {"a/row", "b/under_score"}
    assert {run.name for run in select_runs(everything, "debug/*", None, tmp_path)} == {"debug/fast"}
    only_debug = [run for run in everything if run.name == "debug/fast"]
    assert select_runs(only_debug, "*", None, tmp_path) == only_debug


def test_selecting_no_runs_is_an_error(runs: list[Run], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"runs: 'a/rwo' matches no run.*try: runs=a/row"):
        select_runs(runs, "a/rwo", None, tmp_path)
    with pytest.raises(ConfigError, match=r"runs: is an empty list"):
        select_runs(runs, [], None, tmp_path)
    with pytest.raises(ConfigError, match=r"group: 'g' matches no run's group"):
        select_runs(runs, "*", "g", tmp_path)
    with pytest.raises(ConfigError, match=r"paths.outputs: there is no run below"):
        select_runs([], "*", None, tmp_path)
