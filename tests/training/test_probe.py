"""``trainer.probe_every``: what a run records of it, and that nothing else changes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from altprop.tracking.metrics_file import read_metrics
from altprop.training.checkpoint import read_checkpoint
from altprop.training.run import train
from tests.algorithms.harness import STEPS_PER_EPOCH, assert_equal
from tests.training.fixtures import make_parts


def run(folder: Path, **settings: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The last checkpoint and the records of a run."""
    parts = make_parts(folder, **settings)
    train(parts)
    return read_checkpoint(parts.directory / "checkpoints" / "last.pt"), read_metrics(parts.directory / "metrics.jsonl")


def alignments(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in records if any(name.startswith("alignment/") for name in record)]


@pytest.mark.parametrize(("every", "steps"), [("1ep", [1, 7, 13, 19, 24]), ("5st", [1, 6, 11, 16, 21, 24]), ("50%", [1, 13, 24])])
def test_probed_steps(tmp_path: Path, every: str, steps: list[int]) -> None:
    _, records = run(tmp_path, probe_every=every)
    probed = alignments(records)
    assert [record["step"] for record in probed] == steps
    assert [record["epoch"] for record in probed] == [round(step / STEPS_PER_EPOCH, 6) for step in steps]
    for record in probed:  # the tiny run is backprop, with dropout
        layers = [name for name in record if name.startswith("alignment/angle/")]
        assert len(layers) == 2
        assert all(record[name] == pytest.approx(0, abs=1e-3) for name in layers)
        assert all(record[name.replace("angle", "norm_ratio")] == pytest.approx(1, abs=1e-5) for name in layers)


def test_a_probed_run_is_the_plain_run(tmp_path: Path) -> None:
    plain, plain_records = run(tmp_path / "plain")
    probed, records = run(tmp_path / "probed", probe_every="2st")
    for state in (plain, probed):  # clocks
        state["progress"] = {name: value for name, value in state["progress"].items() if name in ("step", "epoch", "meter")}
    assert_equal(plain, probed)
    assert not alignments(plain_records)
    without = [record for record in records if record not in alignments(records)]
    shown = ("train/loss", "test/loss", "test/accuracy")
    assert [[record[name] for name in shown] for record in without] == [
        [record[name] for name in shown] for record in plain_records
    ]


def test_the_probe_of_a_resumed_run_is_recorded_once(tmp_path: Path) -> None:
    _, straight = run(tmp_path / "straight", probe_every="4st")
    parts = make_parts(tmp_path / "cut", probe_every="4st", checkpoint_every="5st")
    loops = torch.optim.Adam.step
    with pytest.MonkeyPatch.context() as patch:
        calls = [0]

        def failing(*arguments: Any, **options: Any) -> Any:
            calls[0] += 1
            if calls[0] == 14:
                raise KeyboardInterrupt
            return loops(*arguments, **options)

        patch.setattr(torch.optim.Adam, "step", failing)
        with pytest.raises(KeyboardInterrupt):
            train(parts)
    _, resumed = run(tmp_path / "cut", probe_every="4st", checkpoint_every="5st")
    assert alignments(resumed) == alignments(straight)
