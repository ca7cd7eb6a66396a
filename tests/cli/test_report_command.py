"""``report.py`` as a user types it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from altprop.config.project import ROOT
from tests.reporting.test_report import write_run


def report(*arguments: str, outputs: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "report.py"), *arguments, f"paths.outputs={outputs}"]
    return subprocess.run(command, cwd=outputs, capture_output=True, text=True)


def test_the_table_is_printed_and_its_forms_are_written(tmp_path: Path) -> None:
    for seed, key in enumerate(("00000000000a", "00000000000b")):
        write_run(tmp_path, "a/row", key, [90.0 + seed], seed=seed)
    write_run(tmp_path, "b/row", "00000000000c", [10.0])
    done = report("runs=a/*", outputs=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "90.50 ± 0.71" in done.stdout
    assert "b/row" not in done.stdout
    files = sorted((tmp_path / "report").iterdir())
    assert [file.name for file in files] == ["report.csv", "report.html", "report.md", "report.tex"]
    assert all(f"written: {file}" in done.stdout and "a/row" in file.read_text() for file in files)
    again = report(f"to={tmp_path / 'elsewhere'}", "formats=csv", outputs=tmp_path)
    assert again.returncode == 0, again.stderr
    assert [file.name for file in (tmp_path / "elsewhere").iterdir()] == ["report.csv"]
    assert "3 finished" in again.stdout


def test_runs_of_one_model_and_data_set_are_shown_side_by_side(tmp_path: Path) -> None:
    shared = {"model": {"_target_": "models.MLP"}, "dataset": {"label": "MNIST"}}
    for name, key in {"a/row": "00000000000a", "b/row": "00000000000b"}.items():
        write_run(tmp_path, name, key, [90.0, 91.0], config=shared)
    done = report("formats=[csv,markdown,latex]", "figures=true", outputs=tmp_path)
    assert done.returncode == 0, done.stderr
    files = sorted((tmp_path / "report").iterdir())
    assert [file.name for file in files] == ["figures", "report.csv", "report.md", "report.tex", "side_by_side.csv"]
    drawn = sorted(str(file.relative_to(files[0])) for file in files[0].rglob("*.png"))
    assert drawn == ["a/row/00000000000a/curves.png", "b/row/00000000000b/curves.png", "side_by_side_1.png"]
    for text in (done.stdout, files[2].read_text(), files[3].read_text()):
        assert "Side by side at equal cost: MLP on MNIST, test/accuracy" in text


def test_mistakes_are_one_line_each_and_nothing_is_written(tmp_path: Path) -> None:
    write_run(tmp_path, "a/row", "00000000000a", [90.0])
    for argument, line in {
        "runs=a/rwo": "runs: 'a/rwo' matches no run; there are: a/row; try: runs=a/row",
        "metric=test/acuracy": "metric: no run recorded 'test/acuracy'",
        "compare=worst": "compare: is 'worst'; must be last or selected or best; try: compare=last",
        "figures=yess": "figures: is 'yess'; must be true or false; try: figures=true",
        "formats=[pdf]": "formats: 'pdf' is none",
        "to=/dev/null/report": "to: /dev/null/report cannot be written to",
        "to=/proc/report": "to: /proc/report cannot be written to",
        "to=null": "to: is None; must be a folder",
    }.items():
        done = report(argument, outputs=tmp_path)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert line in done.stderr
        assert done.stdout == ""
    assert not (tmp_path / "report").exists()
