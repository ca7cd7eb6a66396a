import csv
import json
import math
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from altprop.tracking.metrics_file import MetricsFile, read_metrics


def record(step: int, **values: float) -> dict[str, float]:
    return {"epoch": step / 10, "step": step, "train/loss": 1 / step, **values}


def write(directory: Path, info, records, **changes) -> MetricsFile:
    tracker = MetricsFile(directory)
    tracker.start(info(directory=directory, **changes))
    for values in records:
        tracker.log(values)
    return tracker


def table(directory: Path) -> list[dict[str, str]]:
    with open(directory / "metrics.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_record_is_readable_immediately_in_both_files(tmp_path, run_info):
    records = [record(10), record(20, **{"test/accuracy": 97.5}), record(30)]
    tracker = MetricsFile(tmp_path)
    tracker.start(run_info())
    for count, values in enumerate(records, start=1):
        tracker.log(values)
        assert read_metrics(tracker.path) == records[:count]
        assert [float(row["step"]) for row in table(tmp_path)] == [values["step"] for values in records[:count]]
    tracker.finish("done", {})
    rows = table(tmp_path)
    assert list(rows[0]) == ["epoch", "step", "train/loss", "test/accuracy"]
    assert [row["test/accuracy"] for row in rows] == ["", "97.5", ""]
    assert [float(row["train/loss"]) for row in rows] == [values["train/loss"] for values in records]


def test_a_new_run_in_an_old_directory_starts_empty(tmp_path, run_info):
    write(tmp_path, run_info, [record(10)]).finish("failed", {})
    write(tmp_path, run_info, [record(20)]).finish("done", {})
    assert [values["step"] for values in read_metrics(tmp_path / "metrics.jsonl")] == [20]
    assert [row["step"] for row in table(tmp_path)] == ["20"]


@settings(max_examples=40, deadline=None)
@given(
    total=st.integers(1, 8),
    killed_after=st.integers(0, 8),
    saved=st.integers(0, 8),
    truncated=st.integers(0, 30),
    late=st.integers(1, 9),
)
def test_killed_and_resumed_equals_uninterrupted(tmp_path_factory, total, killed_after, saved, truncated, late):
    from altprop.tracking.base import RunInfo

    def info(directory: Path, resumed: bool = False, start_step: int = 0) -> RunInfo:
        return RunInfo("k", "n", directory, {}, 0, total, 10, resumed, "g", start_step=start_step)

    records = [record(10 * n, **({"test/accuracy": 90.0 + n} if n >= late else {})) for n in range(1, total + 1)]
    killed_after, saved = min(killed_after, total), min(saved, killed_after, total)
    straight, killed = tmp_path_factory.mktemp("straight"), tmp_path_factory.mktemp("killed")
    write(straight, info, records).finish("done", {})
    write(killed, info, records[:killed_after])
    # the incomplete line that a killed process leaves
    with open(killed / "metrics.jsonl", "ab") as stream:
        stream.write(json.dumps(record(10 * killed_after + 10)).encode()[:truncated])
    with open(killed / "metrics.csv", "ab") as stream:
        stream.write(b"0.3,3")
    write(killed, info, records[saved:], resumed=saved > 0, start_step=10 * saved).finish("done", {})
    for name in ("metrics.jsonl", "metrics.csv"):
        assert (killed / name).read_bytes() == (straight / name).read_bytes()


def test_values_that_are_not_finite_survive(tmp_path, run_info):
    write(tmp_path, run_info, [record(1, a=math.inf, b=math.nan)]).finish("failed", {})
    (values,) = read_metrics(tmp_path / "metrics.jsonl")
    assert values["a"] == math.inf
    assert math.isnan(values["b"])


def test_an_error_in_an_earlier_line_names_file_and_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"ste\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: not a record"):
        read_metrics(path)


def test_a_missing_file_has_no_records(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_logging_before_the_start_raises(tmp_path):
    with pytest.raises(RuntimeError, match="before start"):
        MetricsFile(tmp_path).log(record(1))


def test_a_full_disk_raises_and_leaves_complete_records(tmp_path):
    """Limiting file size to 8 KiB causes the same partial write and OSError as a full disk."""
    program = f"""
        import resource, signal
        from pathlib import Path
        from altprop.tracking.base import RunInfo
        from altprop.tracking.metrics_file import MetricsFile

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        directory = Path({str(tmp_path)!r})
        tracker = MetricsFile(directory)
        tracker.start(RunInfo("k", "n", directory, {{}}, 0, 1, 1, False, "g"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
        for step in range(1, 10**6):
            try:
                tracker.log({{"epoch": step, "step": step, "train/loss": 1.0}})
            except OSError:
                print(step)
                break
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    content = (tmp_path / "metrics.jsonl").read_bytes()
    assert content.endswith(b"}\n")
    assert len(content) <= 8192
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == int(result.stdout) - 1 > 100
