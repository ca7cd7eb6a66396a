"""``model.weights_from``: a new run starts from what another network computed with, or is refused in one line."""

from __future__ import annotations

import json
import os
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from altprop._torchvision import import_torchvision
from altprop.commands.export import export_binary, export_sparse
from altprop.commands.status import row_of
from altprop.config.build import build
from altprop.config.compose import compose
from altprop.config.key import run_key
from altprop.config.plain import to_plain
from altprop.models.resnet import ResNet
from altprop.nn.weights.base import Dense
from altprop.problems import ConfigError
from altprop.reporting.rows import collect_rows
from altprop.reporting.runs import read_run
from altprop.reporting.tables.columns import started_from
from altprop.sweeping.jobs import SweepRun
from altprop.sweeping.queue import Queue
from altprop.training.assembly import assemble, start_from
from altprop.training.parts import Parts
from altprop.training.run import train

SMALL = ["dataset.limit_train=100", "dataset.limit_test=100", "model.hidden=[12,8]", "trainer.figures=false", "~logger"]
SMALL += ["trainer.duration=1ep", "trainer.device=cpu", "trainer.threads=1", "trainer.evaluate_first=true"]
WEIGHTS = "algorithm/weights"


def parts_of(outputs: Path, *overrides: str) -> Parts:
    return build(compose([*SMALL, *overrides, f"paths.outputs={outputs}"]))[0]


def trained(outputs: Path, *overrides: str) -> Path:
    parts = parts_of(outputs, *overrides)
    train(parts)
    return parts.directory


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def tensors(run: Path) -> dict[str, Tensor]:
    return torch.load(run / "checkpoints" / "last.pt", weights_only=True)["algorithm"]["model"]


def message(outputs: Path, *overrides: str) -> str:
    """The line with which a run is refused before anything is written."""
    before = sorted(outputs.rglob("*"))
    with pytest.raises(ConfigError) as caught:
        train(parts_of(outputs, *overrides))
    (problem,) = caught.value.problems
    assert sorted(outputs.rglob("*")) == before
    assert "\n" not in str(problem)
    return str(problem)


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("dense"))


SPARSE = ["algorithm.weights.sparsity=0.8", "algorithm.weights.dense=[]"]
RULES = {
    "static_sparse": SPARSE,
    "rigl": SPARSE,
    "iterative_pruning": [*SPARSE, "algorithm.weights.iterations=1"],
    "n_of_m": [],
    "tied": SPARSE,
    "binary": ["algorithm.weights.scale=channel"],
    "iterative_binary": ["algorithm.weights.epochs_per_layer=2"],
}


@pytest.mark.parametrize("rule", RULES)
def test_a_run_starts_from_what_the_other_network_computed_with(rule: str, tmp_path: Path) -> None:
    source = trained(tmp_path, f"{WEIGHTS}={rule}", *RULES[rule])
    run = trained(tmp_path, f"model.weights_from={source}/checkpoints/last.pt", "algorithm=direct_feedback_alignment")
    first, last = records(run)[0], records(source)[-1]
    assert first["step"] == 0
    assert first["test/loss"] == pytest.approx(last["test/loss"], rel=1e-6)
    assert first["test/accuracy"] == last["test/accuracy"]


def test_what_a_run_started_from_is_recorded(dense: Path, tmp_path: Path) -> None:
    run = trained(tmp_path, f"model.weights_from={dense}", f"{WEIGHTS}=rigl")
    (source,) = json.loads((run / "parent.json").read_text())["sources"]
    assert source["key"] == "model.weights_from"
    assert source["run"] == f"scratch/{dense.name}"
    assert source["file"].endswith(f"{dense.name}/checkpoints/last.pt")
    assert source["code"] == json.loads((dense / "meta.json").read_text())["code"]
    shown = f"scratch/{dense.name} ({source['sha256'][:12]})"
    assert row_of(SweepRun([], [], str(run), 0), Queue())["from"] == shown
    (row,) = collect_rows([read_run(run)], lambda run: run.key)
    assert started_from(row) == shown


def test_a_begun_run_does_not_need_its_source(dense: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = tmp_path / "weights.pt"
    torch.save(tensors(dense), state)
    parts = parts_of(tmp_path, f"model.weights_from={state}")
    train(parts)
    torch.save({}, state)
    train(parts_of(tmp_path, f"model.weights_from={state}"))
    assert "model.weights_from had the content" in caplog.text
    state.unlink()
    assert assemble(parts_of(tmp_path, f"model.weights_from={state}"), start=False)


def test_files_of_weights(dense: Path, tmp_path: Path) -> None:
    """State dicts as they are published."""
    plain = tensors(dense)
    files = {name: tmp_path / f"{name}.pt" for name in ("plain", "old", "nested", "wrapped", "without_counts")}
    torch.save(plain, files["plain"])
    torch.save(plain, files["old"], _use_new_zipfile_serialization=False)
    torch.save({"epoch": 3, "state_dict": plain}, files["nested"])
    torch.save({f"module.{name}": value for name, value in plain.items()}, files["wrapped"])
    torch.save({name: value for name, value in plain.items() if "num_batches" not in name}, files["without_counts"])
    files["safetensors"] = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(plain, files["safetensors"])
    parts = parts_of(tmp_path)
    for file in files.values():
        model = assemble(replace(parts, sources={"model.weights_from": str(file)})).algorithm.model
        assert all(torch.equal(value, plain[name]) for name, value in model.state_dict().items() if "num_batches" not in name)


@pytest.mark.parametrize(("rule", "export", "name"), [("binary", export_binary, "packed"), ("rigl", export_sparse, "sparse")])
def test_exports_are_files_of_weights(rule: str, export: Any, name: str, tmp_path: Path) -> None:
    parts = parts_of(tmp_path, f"{WEIGHTS}={rule}")
    train(parts)
    export(parts)
    first, second = (
        assemble(parts_of(tmp_path, f"model.weights_from={path}")).algorithm.model.state_dict()
        for path in (parts.directory, parts.directory / "export" / f"{name}.safetensors")
    )
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_names_of_torchvision_load(tmp_path: Path) -> None:
    published = import_torchvision().models.resnet18()
    torch.save(published.state_dict(), tmp_path / "published.pth")
    model = ResNet(depth=18, units=nn.ReLU, input_shape=(3, 64, 64), num_classes=1000)
    start_from(str(tmp_path / "published.pth"), model, Dense())
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in published.state_dict().items())


# -- refused in one line ---------------------------------------------------------------------------------------------------


def test_names_and_shapes_that_do_not_fit(dense: Path, tmp_path: Path) -> None:
    state = tensors(dense)
    names = list(state)
    changed = {"extra": torch.ones(2), **{name: value for name, value in state.items() if name != names[0]}}
    torch.save(changed, tmp_path / "changed.pt")
    line = message(tmp_path, f"model.weights_from={tmp_path}/changed.pt")
    assert line.startswith(f"model.weights_from: {names[0]} is missing; extra is unexpected")
    line = message(tmp_path, f"model.weights_from={dense}", "model.hidden=[13,8]")
    assert "has shape [12, 784] instead of [13, 784]" in line
    assert " more" in line


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("hostile",)


def test_files_that_are_not_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "noise.pt").write_bytes(b"noise")
    (tmp_path / "noise.safetensors").write_bytes(b"noise")
    torch.save({"weights": Hostile()}, tmp_path / "code.pt")
    (tmp_path / "old.pt").write_bytes(pickle.dumps(Hostile()))
    torch.save({"epoch": 3}, tmp_path / "numbers.pt")
    (tmp_path / "folder").mkdir()
    parts = parts_of(tmp_path)
    for name in ("noise.pt", "noise.safetensors", "code.pt", "old.pt", "numbers.pt", "folder", "nothing"):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ConfigError, match=rf"^model\.weights_from: [^\n]*{name}[^\n]*$"):
            train(replace(parts, sources={"model.weights_from": name}))
        assert sorted(tmp_path.rglob("*")) == before


def test_a_value_that_is_no_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.weights_from: 3 does not fit"):
        parts_of(tmp_path, "model.weights_from=3")


def test_two_files_of_weights_are_refused(dense: Path, tmp_path: Path) -> None:
    both = [f"model.weights_from={dense}", f"{WEIGHTS}=binary", f"algorithm.weights.weights_from={dense}/checkpoints/last.pt"]
    with pytest.raises(ConfigError, match=r"model\.weights_from: is set together with algorithm\.weights\.weights_from"):
        parts_of(tmp_path, *both)


def test_unknown_weights_rules_are_refused(tmp_path: Path) -> None:
    """The file alone says how its weights were computed; code that it names is not imported."""
    source = trained(tmp_path, f"{WEIGHTS}=n_of_m")
    state = torch.load(source / "checkpoints" / "last.pt", weights_only=True)
    state["config"] = state["config"].replace("altprop.weights.NOfM", "antigravity.NOfM")
    torch.save(state, tmp_path / "foreign.pt")
    assert re.search(r"does not say how \S+\.weight was computed", message(tmp_path, f"model.weights_from={tmp_path}/foreign.pt"))


def test_a_sparse_network_needs_its_masks(tmp_path: Path) -> None:
    source = trained(tmp_path, f"{WEIGHTS}=rigl", *SPARSE)
    last = source / "checkpoints" / "last.pt"
    line = message(tmp_path, f"{WEIGHTS}=static_sparse", *SPARSE, f"model.weights_from={last}")
    assert line.endswith(f"model.weights_from={last} algorithm.weights.mask_from={last}")
    sparse = [f"{WEIGHTS}=static_sparse", *SPARSE, f"algorithm.weights.mask_from={last}"]
    expected = records(source)[-1]
    for key in ("model.weights_from", "algorithm.weights.weights_from"):
        run = trained(tmp_path, *sparse, f"{key}={last}")
        assert records(run)[0]["test/loss"] == pytest.approx(expected["test/loss"], rel=1e-6)
        mine, theirs = tensors(run), tensors(source)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine if name.endswith(".mask"))


def test_pruning_does_not_revive_what_is_masked(tmp_path: Path) -> None:
    source = trained(tmp_path, f"{WEIGHTS}=static_sparse", *SPARSE)
    last = source / "checkpoints" / "last.pt"
    prune = [f"{WEIGHTS}=iterative_pruning", "algorithm.weights.sparsity=0.9", "algorithm.weights.dense=[]"]
    prune += ["algorithm.weights.iterations=2", "algorithm.weights.every_epochs=1", "trainer.duration=3ep"]
    assert f"algorithm.weights.weights_from={last}" in message(tmp_path, *prune, f"model.weights_from={last}")
    run = trained(tmp_path, *prune, f"algorithm.weights.weights_from={last}")
    assert records(run)[0]["test/loss"] == pytest.approx(records(source)[-1]["test/loss"], rel=1e-6)
    before, after = tensors(source), tensors(run)
    masks = [name for name in after if name.endswith(".mask")]
    assert masks
    assert all((after[name] <= before[name]).all() for name in masks)
    assert records(run)[-1]["weights/density"] == pytest.approx(0.1, abs=0.01)


def test_pruning_starts_from_the_signs_of_a_binary_run(tmp_path: Path) -> None:
    source = trained(tmp_path, f"{WEIGHTS}=binary", "algorithm.weights.scale=layer")
    prune = [f"{WEIGHTS}=iterative_pruning", "algorithm.weights.iterations=1", f"algorithm.weights.weights_from={source}"]
    run = trained(tmp_path, *prune)
    assert records(run)[0]["test/loss"] == pytest.approx(records(source)[-1]["test/loss"], rel=1e-6)


# -- run keys --------------------------------------------------------------------------------------------------------------


def key_of(*overrides: str) -> str:
    return run_key(to_plain(compose(overrides))[0])


def test_the_run_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _ = to_plain(compose(["dataset=mnist_sample"]))
    without = {**plain, "model": {name: value for name, value in plain["model"].items() if name != "weights_from"}}
    assert run_key(plain) == run_key(without)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latest").symlink_to("run")
    keys = {key_of(f"model.weights_from={path}", "paths.outputs=x") for path in ("run", "./run", "latest", f"{tmp_path}/run")}
    assert len(keys) == 1
    assert keys != {run_key(plain)}
