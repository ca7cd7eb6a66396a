"""A foreign model as a run: what its weights rule leaves out is named everywhere, and its exports give the run's scores."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import altprop
from altprop.problems import ConfigError
from altprop.reporting.rows import collect_rows
from altprop.reporting.runs import read_runs
from altprop.reporting.tables.notes import messages_about_runs

TINY = ("dataset.limit_train=128", "dataset.limit_test=64", "trainer.figures=false", "trainer.duration=1ep", "model=other")
RULE = ("algorithm=backprop", "algorithm/weights=rigl", "algorithm.weights.sparsity=0.5")
LINE = "algorithm.weights: DynamicSparse leaves out stages.0.1.0.position (32 weights); they stay as they are"


def test_left_out_weights_are_named_and_exports_agree(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = f"paths.outputs={tmp_path}"
    model = "model._target_=tests.zoo.models.ViT"
    altprop.train(*TINY, *RULE, model, outputs, "task=validate")
    assert capsys.readouterr().out.splitlines()[1:] == [LINE]
    assert list(tmp_path.iterdir()) == []

    logging.getLogger("altprop").propagate = True
    with caplog.at_level(logging.WARNING, "altprop"):
        run = altprop.train(*TINY, *RULE, model, outputs)
    assert LINE in caplog.messages
    assert run.last["weights/left_out/stages.0.1.0.position"] == 32
    rows = collect_rows(read_runs(tmp_path)[0], lambda run: run.name)
    expected = "left out by the weights rule: scratch: stages.0.1.0.position (32 weights)"
    assert messages_about_runs(rows, [], tmp_path) == [expected]

    altprop.train(f"run={run.directory}", "trust_run=true", "task=export_sparse")
    assert sorted(file.name for file in (run.directory / "export").iterdir()) == ["float.safetensors", "sparse.safetensors"]


def test_layers_without_shapes_are_refused(tmp_path: Path) -> None:
    line = r"^model: stages\.0\.1\.1, stages\.0\.1\.2 get their shapes only from the first mini-batch; [^\n]*$"
    with pytest.raises(ConfigError, match=line):
        altprop.train(*TINY, "algorithm=backprop", "model._target_=tests.zoo.models.Lazy", f"paths.outputs={tmp_path}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "rule", "task"), [("SharedNet", "binary", "export_binary"), ("SpectralNet", "set", "export_sparse")]
)
def test_exports_of_shared_and_normalized_layers(tmp_path: Path, name: str, rule: str, task: str) -> None:
    options = (f"algorithm/weights={rule}", "algorithm=backprop", f"model._target_=tests.zoo.models.{name}")
    run = altprop.train(*TINY, *options, f"paths.outputs={tmp_path}")
    altprop.train(f"run={run.directory}", "trust_run=true", f"task={task}")
    assert len(list((run.directory / "export").iterdir())) == 2
