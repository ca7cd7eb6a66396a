"""A finished run can be made longer, and is then what it would have been with this length from the start."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from altprop.commands.train import run_task
from altprop.config import restore
from altprop.config.compose import compose
from altprop.problems import ConfigError
from altprop.training.checkpoint import read_checkpoint

SMALL = ["dataset.limit_train=200", "dataset.limit_test=100", "model.hidden=[8]", "trainer.figures=false", "trainer.device=cpu"]
SMALL += ["dataset.validation.size=50", "trainer.threads=1"]

Train = Callable[..., Path]


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Train:
    """Train with overrides, as ``train.py`` does; returns the run directory."""

    def run(outputs: Path, *overrides: str) -> Path:
        monkeypatch.setattr(restore, "overridden_keys", lambda: [text.partition("=")[0] for text in overrides])
        run_task(compose([*([] if overrides[0].startswith("run=") else SMALL), *overrides, f"paths.outputs={outputs}"]))
        return (outputs / "latest").resolve()

    return run


def records(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if not name.startswith("time/")} for line in lines]


def test_a_longer_run_is_what_it_would_have_been_from_the_start(tmp_path: Path, train: Train) -> None:
    schedule = ("schedule=multistep", "schedule.scheduler.milestones=[3]")
    straight = train(tmp_path / "straight", "trainer.duration=4ep", *schedule)
    short = train(tmp_path / "extended", "trainer.duration=2ep", *schedule)
    longer = train(tmp_path / "extended", f"run={short}", "trainer.duration=4ep")
    assert longer.name == straight.name != short.name
    assert records(longer) == records(straight)
    for name in ("last.pt", "best.pt"):
        mine, expected = (read_checkpoint(run / "checkpoints" / name, straight.name) for run in (longer, straight))
        assert mine["step"] == expected["step"]
        for key, value in expected["algorithm"]["model"].items():
            torch.testing.assert_close(mine["algorithm"]["model"][key], value, rtol=0, atol=0)
    assert json.loads((longer / "parent.json").read_text()) == {"run": f"{short.parent.name}/{short.name}"}
    assert json.loads((short / "status.json").read_text())["status"] == "done"
    assert train(tmp_path / "extended", f"run={short}", "trainer.duration=4ep") == longer


@pytest.mark.parametrize(
    ("overrides", "duration", "message"),
    [
        ([], "1ep", r"trainer.duration: 1ep is not longer than 2ep; .*try: trainer.duration=4ep"),
        ([], "500st", r"trainer.duration: 500st is not longer than 2ep"),
        ([], "many", r"trainer.duration: many is refused; 'many' is not a duration"),
        (["schedule=cosine"], "4ep", r"schedule.scheduler.T_max: the schedule ends with the run"),
        (["trainer.evaluate_every=50%"], "4ep", r"trainer.evaluate_every: 50% of a longer run is at other steps"),
        (["algorithm=sequential_greedy"], "4ep", r"algorithm: SequentialGreedy divides the length of the run"),
    ],
)
def test_what_cannot_be_made_longer(overrides: list[str], duration: str, message: str, tmp_path: Path, train: Train) -> None:
    run = train(tmp_path, "trainer.duration=2ep", *overrides)
    with pytest.raises(ConfigError, match=message):
        train(tmp_path, f"run={run}", f"trainer.duration={duration}")
    assert [path.name for path in run.parent.iterdir()] == [run.name]
