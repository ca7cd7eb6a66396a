"""Run directories as ``train.py`` leaves them, for the tests of reports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from altprop.commands.report import group_function
from altprop.reporting.rows import Row, collect_rows
from altprop.reporting.runs import read_runs

PAPER = {"reference": "Somebody & al. (2020)", "table": "Table 1, 50 %", "metric": "test/accuracy", "value": 90.5, "std": 0.2}
PNG = b"\x89PNG"
"""The first bytes of a PNG file."""


def write_run(
    outputs: Path,
    name: str,
    key: str,
    accuracies: Sequence[float],
    *,
    seed: int = 0,
    status: str = "done",
    config: dict[str, Any] | None = None,
    command: Sequence[str] = (),
    meta: dict[str, Any] | None = None,
    **fields: Any,
) -> Path:
    """Write a run directory with one record per epoch, each of 100 steps of 10 images, 2 s of training and 5 GFLOPs.

    Args:
        outputs: The folder of all runs.
        name: The run's name.
        key: The run's key.
        accuracies: The test accuracy after each epoch.
        seed: The run's seed.
        status: The run's status.
        config: Nodes to add to the run's configuration.
        command: The arguments of its command line.
        meta: Values to add to ``meta.json``.
        fields: Values to add to ``status.json``.
    """
    directory = outputs / name / key
    directory.mkdir(parents=True)
    content = {"name": name, "seed": seed, "paper": {**PAPER, "seeds": 5}, "paths": {"outputs": str(outputs)}, **(config or {})}
    (directory / "config.yaml").write_text(yaml.safe_dump(content))
    records = [
        {
            "epoch": float(epoch),
            "step": 100 * epoch,
            "test/accuracy": accuracy,
            "time/images_per_second": 500.0,
            "time/train_seconds": 2.0 * epoch,
            "time/elapsed": 3.0 * epoch,
            "cost/flops": 5e9 * epoch,
        }
        for epoch, accuracy in enumerate(accuracies, start=1)
    ]
    write_records(directory, records)
    state = {"status": status, "name": name, "key": key, "epoch": len(accuracies), "total_epochs": 3, "updated_at": "2026-01-01"}
    (directory / "status.json").write_text(json.dumps({**state, **fields}))
    (directory / "meta.json").write_text(json.dumps({"command": ["train.py", *command], "device": "cpu", **(meta or {})}))
    return directory


def read_records(run: Path) -> list[dict[str, Any]]:
    """The records of the run directory ``run``."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def write_records(run: Path, records: Sequence[dict[str, Any]]) -> None:
    """Replace the records of the run directory ``run``."""
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def rows_of(outputs: Path, **options: Any) -> list[Row]:
    """The rows of all runs below ``outputs``."""
    runs, _ = read_runs(outputs)
    return collect_rows(runs, group_function(runs), **options)
