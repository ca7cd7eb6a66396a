import io
import re

import pytest
from rich.console import Console as RichConsole

from altprop.tracking.columns import COLUMNS, columns_of
from altprop.tracking.console import Console, line

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def record(epoch: float, accuracy: float, **more: float) -> dict[str, float]:
    return {
        "epoch": epoch,
        "step": round(epoch * 10),
        "train/loss": 0.5,
        "train/accuracy": 80.0,
        "validation/accuracy": accuracy,
        "validation/loss": 0.4,
        "train/learning_rate": 0.001,
        "time/images_per_second": 12345.6,
        "time/elapsed": 61.0,
        **more,
    }


def output(tracker: Console, info, records, summary=None, status="done") -> str:
    tracker.start(info)
    for values in records:
        tracker.progress(0, values["step"], {"train/loss": values["train/loss"], "time/images_per_second": 10.0})
        tracker.log(values)
    tracker.finish(status, {"test/accuracy": 97.125} if summary is None else summary)
    return tracker.console.file.getvalue()


def on_terminal() -> Console:
    return Console(console=RichConsole(file=Terminal(), force_terminal=True, width=100, color_system=None, legacy_windows=False))


def in_log_file() -> Console:
    return Console(console=RichConsole(file=io.StringIO(), width=80))


def visible(text: str) -> list[str]:
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text))


def rows(text: str) -> list[str]:
    return [line for line in visible(text) if re.match(r" +[\d.]+  ", line)]


def test_a_log_file_gets_one_dated_line_per_epoch_and_no_escape_codes(run_info):
    records = [record(n / 2, 90.0 + n) for n in range(1, 9)]  # two evaluations per epoch
    text = output(in_log_file(), run_info(), records)
    assert "\x1b" not in text
    assert "\r" not in text
    lines = text.splitlines()
    assert all(re.match(STAMP, line) for line in lines)
    epochs = [line for line in lines if " epoch " in line]
    assert len(epochs) == 5  # the first half epoch, then one in each of the four
    assert epochs[-1].endswith(
        "epoch 4/4: train loss 0.5000, train % 80.00, validation % 98.00, rate 0.001, images/s 12,346, time 0:01:01"
    )
    assert "Test accuracy 97.12 %" in lines[-2]
    assert str(run_info().directory) in lines[-1]


def test_a_terminal_gets_an_aligned_table_with_the_main_columns_only(run_info):
    heads = {f"test/accuracy/head_{n}": 50.0 for n in range(40)}
    text = output(on_terminal(), run_info(), [record(n, 90.0 + n, **heads) for n in range(1, 5)])
    assert "head" not in text
    table = rows(text)
    assert [line.split()[0] for line in table] == ["1", "2", "3", "4"]
    assert table[-1].split() == ["4", "0.5000", "80.00", "94.00", "0.001", "12,346", "0:01:01"]
    titles = next(line for line in visible(text) if "train loss" in line)
    assert len({len(line) for line in table}) == 1
    assert titles.rstrip().endswith("time")
    for title in ("train loss", "validation %", "images/s"):
        assert titles.index(title) + len(title) in [match.end() for match in re.finditer(r"\S+", table[0])]


def test_the_bar_shows_epoch_loss_speed(run_info):
    text = output(on_terminal(), run_info(), [record(2, 91.0)])
    assert "epoch 2/4" in text
    assert "50 %" in text
    assert "loss 0.5 10 images/s" in text


def test_records_without_an_evaluation_add_no_row(run_info):
    text = output(on_terminal(), run_info(), [{"epoch": 0.5, "step": 5, "train/loss": 1.0}])
    assert rows(text) == []


def test_the_selected_epoch_is_shown_unless_it_is_the_last(run_info):
    best = {"best/test/accuracy": 98.0, "best/epoch": 2.0, "best/step": 20}
    ending = {"test/accuracy": 97.125, "step": 40, **best}
    assert "Test accuracy 97.12 % (98.00 % at the selected epoch 2) after" in output(in_log_file(), run_info(), [], ending)
    assert "97.12 % after" in output(in_log_file(), run_info(), [], {**ending, "best/step": 40})


@pytest.mark.parametrize("status", ["failed", "preempted", "interrupted"])
def test_an_early_end_is_reported(run_info, status):
    text = output(in_log_file(), run_info(), [record(1, 91.0)], summary={}, status=status)
    assert f"{status.capitalize()} at step 10" in text
    assert "Test accuracy" not in text


def test_a_resume_is_reported(run_info):
    text = output(in_log_file(), run_info(resumed=True, start_step=15), [])
    assert "Resumed at step 15, epoch 1.5" in text


def test_brackets_in_names_are_not_markup(run_info):
    assert "[bold]x[/bold]" in output(in_log_file(), run_info(name="[bold]x[/bold]"), [])


def test_finishing_without_a_start_prints_nothing():
    tracker = in_log_file()
    tracker.finish("failed", {})
    assert tracker.console.file.getvalue() == ""


def test_the_table_fits_a_narrow_terminal():
    assert sum(column.width + 2 for column in COLUMNS) <= 84


def test_a_notebook_gets_a_table_and_one_line_of_progress(run_info, monkeypatch, capsys):
    monkeypatch.setattr("altprop.tracking.console.get_console", lambda: RichConsole(force_jupyter=True))
    monkeypatch.setattr("altprop.tracking.console.REFRESH", 0.0)
    tracker = Console()
    tracker.start(run_info())
    tracker.progress(0, 5, {"train/loss": 0.25})
    shown = capsys.readouterr().out
    tracker.log(record(1, 90.0))
    tracker.finish("done", {"test/accuracy": 97.125})
    rest = capsys.readouterr().out
    assert not re.search(rf"{STAMP}|\x1b", shown + rest)
    started, progress = shown.split("\r\r")
    assert started.count("\n") == 1
    assert "loss 0.25" in progress
    erased, table = rest[1:].split("\r")
    assert erased == " " * len(progress)
    assert [line.split()[0] for line in table.splitlines() if line.strip()] == ["epoch", "1", "Test", "Run"]


def test_own_metrics_have_columns_and_are_in_log_lines() -> None:
    columns = columns_of(["top5"])
    assert [column.title for column in columns][4:7] == ["test %", "validation top5", "test top5"]
    assert "test top5 99.8" in line({"epoch": 1.0, "test/top5": 99.8}, 3, columns)
