"""``task=export_onnx``: the file gives the run's scores on the test split in onnxruntime."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from altprop.commands import export
from altprop.commands.export import ONNX, export_onnx
from altprop.config.build import build
from altprop.config.compose import compose
from altprop.nn.export.onnx_file import load_onnx, missing_packages
from altprop.problems import ConfigError, RunFailed
from altprop.training.parts import Parts
from altprop.training.run import train
from altprop.training.trained import load_trained

SMALL = ["dataset.limit_train=200", "dataset.limit_test=200", "model.hidden=[16,12]", "trainer.figures=false", "~logger"]
SMALL += ["trainer.duration=1ep", "trainer.device=cpu", "trainer.threads=1"]
NETWORKS = {
    "dense": [],
    "convolutions": ["model=convnet", "model.channels=[4,pool,6,pool]"],
    "binary": ["algorithm/weights=binary", "algorithm.weights.scale=channel"],
    "sparse": ["algorithm/weights=rigl"],
    "hard units": ["algorithm=target_propagation", "model/units=sign_step"],
    "float64": ["trainer.precision=fp64"],
}

pytestmark = pytest.mark.skipif(bool(missing_packages()), reason="the extra onnx is not installed")


def trained(tmp_path: Path, *overrides: str) -> Parts:
    parts = build(compose([*SMALL, *overrides, f"paths.outputs={tmp_path}"]))[0]
    train(parts)
    return parts


@pytest.mark.parametrize("network", NETWORKS)
def test_the_scores_are_those_of_the_run(network: str, tmp_path: Path) -> None:
    parts = trained(tmp_path, *NETWORKS[network])
    path = parts.directory / "export" / ONNX
    assert export_onnx(parts) == {ONNX: path.stat().st_size}
    run = load_trained(parts, "auto").run
    scores = load_onnx(path)
    with run.algorithm.inference():
        for images, _ in run.data.test.batches():
            expected = run.algorithm.predict(images)
            torch.testing.assert_close(scores(images), expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(scores(images[:1]), expected[:1], rtol=1e-4, atol=1e-5)


def test_what_cannot_be_exported_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    energy = ["model=eqprop_mlp", "algorithm=equilibrium_propagation", "algorithm.free_steps=3", "algorithm.nudge_steps=2"]
    with pytest.raises(ConfigError, match="task: EquilibriumPropagation does not compute its scores by one forward pass"):
        export_onnx(trained(tmp_path, *energy))
    parts = trained(tmp_path)
    monkeypatch.setattr(export, "load_onnx", lambda path: lambda images: torch.zeros(len(images), 10))
    with pytest.raises(RunFailed, match=r"model\.onnx gives other scores than the run for 200 of 200 images"):
        export_onnx(parts)
    monkeypatch.setattr(export, "missing_packages", lambda: ["onnxruntime"])
    with pytest.raises(ConfigError, match=r"task: needs onnxruntime; .*pip install 'altprop\[onnx\]'"):
        export_onnx(parts)
