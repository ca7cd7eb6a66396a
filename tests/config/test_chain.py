from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from altprop.config.build import build
from altprop.config.compose import compose
from altprop.config.key import run_key
from altprop.config.plain import to_plain
from altprop.problems import ConfigError
from altprop.training.assembly import assemble
from altprop.training.run import train

PRUNE = ["experiment=dsr/quick_prune"]


def plain_of(*overrides: str) -> dict:
    plain, problems = to_plain(compose(overrides))
    assert not problems
    return plain


def test_the_source_of_a_run_has_its_own_key(tmp_path):
    outputs = f"paths.outputs={tmp_path}"
    dense = plain_of("experiment=dsr/quick_dense", "seed=3", outputs)
    prune = plain_of("experiment=dsr/quick_prune", "seed=3", outputs, "algorithm.weights.sparsity=0.8")
    assert prune["algorithm"]["weights"]["weights_from"] == f"{tmp_path}/dsr/quick_dense/{run_key(dense)}/checkpoints/last.pt"
    assert run_key(dense) != run_key(plain_of("experiment=dsr/quick_dense", "seed=4", outputs))


def test_overrides_reach_the_source(tmp_path):
    outputs = f"paths.outputs={tmp_path}"
    source = plain_of("experiment=dsr/quick_dynamic", "algorithm.weights.sparsity=0.75", outputs)
    weights = plain_of("experiment=dsr/quick_mask_init", "algorithm.weights.sparsity=0.75", outputs)["algorithm"]["weights"]
    folder = f"{tmp_path}/dsr/quick_dynamic/{run_key(source)}/checkpoints"
    assert (weights["mask_from"], weights["weights_from"]) == (f"{folder}/last.pt", f"{folder}/initial.pt")
    assert weights["sparsity"] == 0.75


def test_the_key_does_not_depend_on_the_folder_of_the_runs(tmp_path):
    one, other = (run_key(plain_of(*PRUNE, f"paths.outputs={folder}")) for folder in (tmp_path / "a", tmp_path / "b"))
    assert one == other


def test_a_missing_source_is_reported_with_the_command_that_trains_it(tmp_path):
    config = compose([*PRUNE, "seed=5", f"paths.outputs={tmp_path}", "task=validate"])
    with pytest.raises(ConfigError) as caught:
        build(config)
    (problem,) = caught.value.problems
    assert problem.key == "algorithm.weights.weights_from"
    assert problem.fix == "python train.py experiment=dsr/quick_dense seed=5"
    assert not any(tmp_path.iterdir())


def test_a_run_that_has_begun_no_longer_needs_its_source(tmp_path):
    config = compose([*PRUNE, f"paths.outputs={tmp_path}"])
    key = run_key(plain_of(*PRUNE, f"paths.outputs={tmp_path}"))
    (tmp_path / "dsr" / "quick_prune" / key / "checkpoints").mkdir(parents=True)
    parts, _ = build(config)
    assert parts.key == key


def test_resolving_does_not_change_the_running_hydra(tmp_path):
    marker = object()
    GlobalHydra.instance().hydra = marker
    try:
        plain_with_marker = compose(["experiment=dsr/quick_dense"])  # clears it; resolving below must not
        GlobalHydra.instance().hydra = marker
        config = plain_with_marker.copy()
        config.paths.outputs = str(tmp_path)
        config.tags = ["${run_of:dsr/quick_static}"]
        assert config.tags[0].startswith(f"{tmp_path}/dsr/quick_static/")
        assert GlobalHydra.instance().hydra is marker
    finally:
        GlobalHydra.instance().clear()


@pytest.mark.parametrize(("sparsity", "value"), [(0.98, 98.14), (0.9, 98.44), (0.93, None)])
def test_lookup(sparsity, value):
    plain = plain_of("experiment=dsr/mnist_dynamic", f"algorithm.weights.sparsity={sparsity}")
    assert plain["paper"]["value"] == value


def test_new_random_weights_differ_from_the_initial_weights_of_the_run_that_provides_the_mask(tmp_path: Path) -> None:
    """Section 2.8: the two halves of the lottery-ticket test differ only in the weights, even if all runs have the same seed."""
    outputs = [f"paths.outputs={tmp_path}", "seed=2", "~logger"]
    source, _ = build(compose(["experiment=dsr/quick_dynamic", "trainer.figures=false", *outputs]))
    train(source)

    def start(experiment: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """The weights and masks at the start of the run."""
        parts, _ = build(compose([f"experiment={experiment}", *outputs]))
        algorithm = assemble(parts).algorithm
        algorithm.epoch_start(0)
        state = algorithm.model.state_dict()
        masks = {name: value for name, value in state.items() if name.endswith(".mask")}
        return {name: value for name, value in state.items() if name.endswith(".original")}, masks

    new, masks = start("dsr/quick_mask_random")
    initial, same_masks = start("dsr/quick_mask_init")
    first, last = (
        torch.load(source.directory / "checkpoints" / name, weights_only=True)["algorithm"]["model"]
        for name in ("initial.pt", "last.pt")
    )
    assert len(initial) == len(masks) == 3
    for name, weight in initial.items():
        assert torch.equal(weight, first[name])
        assert (new[name] == weight).float().mean() < 0.01
    for name, mask in masks.items():
        assert torch.equal(mask, last[name])
        assert torch.equal(mask, same_masks[name])
        assert not torch.equal(mask, first[name])
