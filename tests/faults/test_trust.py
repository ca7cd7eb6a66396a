"""What a run directory of somebody else may name: hostile configurations are refused before anything is imported or executed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import altprop
from altprop.config.build import build
from altprop.config.compose import compose
from altprop.config.key import run_key
from altprop.config.plain import to_plain
from altprop.config.restore import read_config, trusted_config
from altprop.config.trust import problems_of_run
from altprop.problems import ConfigError

EVIL = "evil_module_of_a_run"
"""A module in ``sys.path`` that leaves a file when it is imported, and whose class and function do so when called."""
CALL = {"_target_": f"{EVIL}.call"}
SHELL = {"_target_": "subprocess.check_output", "args": "touch {marker}", "shell": True}

HOSTILE: dict[str, tuple[str, Any]] = {
    # what was seen to run
    "a reader of pickles": ("optimizer.lr", {"_target_": "pandas.read_pickle", "filepath_or_buffer": "{evil}.pkl"}),
    "joblib": ("dataset", {"_target_": "joblib.load", "filename": "{evil}.pkl"}),
    "numpy": ("dataset", {"_target_": "numpy.load", "file": "{evil}.npy", "allow_pickle": True}),
    "torch.load": ("dataset", {"_target_": "torch.load", "f": "{evil}.pt", "weights_only": False}),
    "torch.hub": ("model", {"_target_": "torch.hub.load", "repo_or_dir": "{evil}", "model": "x", "source": "local"}),
    "a module that runs code when it is imported": ("model", {"_target_": f"{EVIL}.Model", "_partial_": True}),
    # places
    "a model of a module": ("model", CALL),
    "the algorithm": ("algorithm", CALL),
    "the weights rule": ("algorithm.weights", CALL),
    "the estimator": ("algorithm.estimator", CALL),
    "units": ("model.units", {**CALL, "_partial_": True}),
    "a scheduler": ("schedule.scheduler", {**CALL, "_partial_": True}),
    "a function of a scheduler": (
        "schedule.scheduler",
        {"_target_": "torch.optim.lr_scheduler.LambdaLR", "_partial_": True, "lr_lambda": {**CALL, "_partial_": True}},
    ),
    "a tracker": ("logger.mine", CALL),
    "a metric": ("metrics", {"mine": {**CALL, "_partial_": True}}),
    "augmentation": ("dataset.augmentation", CALL),
    "a nested argument": ("dataset.validation.size", CALL),
    "a list": ("dataset.mean", [0.1, {"deep": [CALL]}]),
    "the trainer": ("trainer.early_stopping", CALL),
    "a folder": ("paths.data", CALL),
    "the paper": ("paper", CALL),
    "a key that nothing knows": ("mine", CALL),
    # ways to say it
    "a command": ("optimizer.lr", SHELL),
    "os.system": ("optimizer.lr", {"_target_": "os.system", "command": "touch {marker}"}),
    "eval": ("optimizer.lr", {"_target_": "builtins.eval", "_args_": ["open('{marker}', 'w')"]}),
    "exec without a module": ("optimizer.lr", {"_target_": "exec"}),
    "getattr": ("optimizer.lr", {"_target_": "builtins.getattr", "_args_": ["os", "system"]}),
    "a class by its name": ("optimizer.lr", {"_target_": "hydra.utils.get_class", "path": f"{EVIL}.Model"}),
    "a method by its name": ("optimizer.lr", {"_target_": "hydra.utils.get_method", "path": f"{EVIL}.call"}),
    "Hydra in Hydra": ("optimizer.lr", {"_target_": "hydra.utils.instantiate", "config": CALL}),
    "importlib": ("optimizer.lr", {"_target_": "importlib.import_module", "name": EVIL}),
    "pydoc": ("optimizer.lr", {"_target_": "pydoc.locate", "path": f"{EVIL}.call"}),
    "runpy": ("optimizer.lr", {"_target_": "runpy.run_path", "path_name": "{evil}.py"}),
    "positional arguments": ("optimizer._args_", [CALL]),
    "not recursive": ("optimizer._recursive_", False),
    "not text": ("model._target_", ["os", "system"]),
    "with spaces": ("model._target_", f" {EVIL}.call"),
    "relative": ("model._target_", f"..{EVIL}.call"),
    # allowed packages, but not what may be named in them
    "torch.utils": ("model", {"_target_": "torch.utils.cpp_extension.load", "name": "x", "sources": ["{evil}.cpp"]}),
    "torch.jit": ("model", {"_target_": "torch.jit.load", "f": "{evil}.pt"}),
    "a module behind torch.nn": ("model", {"_target_": "torch.nn.modules.module.os.system", "command": "touch {marker}"}),
    "a function of torch.nn": ("model", {"_target_": "torch.nn.factory_kwargs", "kwargs": {}}),
    "a method of a class": ("model", {"_target_": "torch.nn.Module.load_state_dict"}),
    "a class that starts processes": ("model", {"_target_": "torch.nn.DataParallel", "module": None}),
    "a module behind torch.optim": ("optimizer", {"_target_": "torch.optim.optimizer.torch.load", "f": "{evil}.pt"}),
    "a file of altprop by its path": ("model", {"_target_": "altprop.config.checks.targets.locate", "path": f"{EVIL}.call"}),
    "a function of altprop that runs commands": ("model", {"_target_": "altprop.code_state._git", "folder": "/"}),
    "a function of altprop that reads files": ("model", {"_target_": "altprop.data.read_pickle", "path": "{evil}.pkl"}),
    "a function of altprop that writes files": ("model", {"_target_": "altprop.tracking.write_metadata", "directory": "/"}),
    "a class of altprop that is not built": (
        "dataset",
        {"_target_": "altprop.tasks.RunDirectory", "path": "/", "name": "", "key": ""},
    ),
    "a task of altprop": ("dataset", {"_target_": "altprop.tasks.train", "parts": None}),
    "a launcher": ("dataset", {"_target_": "altprop.sweeping.SlurmQueue"}),
    "a metric that downloads": (
        "metrics",
        {"fid": {"_target_": "torchmetrics.image.fid.FrechetInceptionDistance", "_partial_": True}},
    ),
    # resolvers
    "a resolver that makes nodes": ("optimizer.lr", "${oc.create:{_target_: os.system}}"),
    "a resolver that parses": ("optimizer.lr", "${oc.decode:'{_target_: os.system}'}"),
    "a resolver that composes": ("optimizer.lr", "${run_of:ftprop/quick}"),
    "a reference": ("optimizer.lr", "${paths.data}"),
    "a target from the environment": ("model._target_", "${oc.env:HOME}"),
    "a nested resolver": ("optimizer.lr", "${oc.env:${oc.env:HOME}}"),
    "a secret for a tracker": ("logger.wandb", {"_target_": "altprop.tracking.WandB", "project": "${oc.env:HOME}"}),
    "a reference as a tag": ("tags", ["x-${oc.create:[1]}"]),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    outputs = tmp_path_factory.mktemp("outputs")
    config, problems = to_plain(compose([f"paths.outputs={outputs}", "trainer.duration=1ep"]))
    assert problems == []
    return config


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that exists if anything of the hostile module was imported or executed."""
    file = tmp_path / "executed"
    lines = [
        "import pathlib",
        f"def call(*a, **k): pathlib.Path({str(file)!r}).touch()",
        "call()",
        "class Model: __init__ = call",
    ]
    (tmp_path / f"{EVIL}.py").write_text("\n".join(lines))
    for ending in ("pkl", "npy", "pt"):
        (tmp_path / f"{EVIL}.{ending}").write_bytes(f"cbuiltins\nopen\n(V{file}\nVw\ntR.".encode())
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop(EVIL, None)
    return file


def filled(value: Any, marker: Path) -> Any:
    """``value`` with the paths of this test."""
    if isinstance(value, dict):
        return {name: filled(child, marker) for name, child in value.items()}
    if isinstance(value, list):
        return [filled(child, marker) for child in value]
    if isinstance(value, str):
        return value.replace("{marker}", str(marker)).replace("{evil}", str(marker.parent / EVIL))
    return value


def written(plain: dict[str, Any], key: str, value: Any) -> Path:
    """The directory of a run whose configuration is ``plain`` with ``value`` at ``key``, under the key that belongs to it."""
    config = OmegaConf.create({name: child for name, child in plain.items() if name != "trust_run"})
    OmegaConf.update(config, key, value, merge=False, force_add=True)
    stored: Any = OmegaConf.to_container(config, resolve=False)
    folder = Path(plain["paths"]["outputs"]) / plain["name"] / run_key(stored)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(stored)))
    return folder


ENTRIES: dict[str, Callable[[Path], object]] = {
    "train": lambda run: build(compose([f"run={run}"])),
    "evaluate": lambda run: altprop.evaluate(run),
    "load": lambda run: altprop.Run(run).load(),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_a_run_directory_may_not_name_is_refused_before_anything_happens(
    case: str, plain: dict[str, Any], marker: Path
) -> None:
    key, value = HOSTILE[case]
    run = written(plain, key, filled(value, marker))
    with pytest.raises(ConfigError) as refusal:
        trusted_config(read_config(run), ["task"], trust=False)
    assert {problem.fix for problem in refusal.value.problems} == {"trust_run=true"}
    assert all(problem.key.startswith(key) and "\n" not in str(problem) for problem in refusal.value.problems)
    assert EVIL not in sys.modules
    assert not marker.exists()


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("case", ["a module that runs code when it is imported", "a command", "a nested argument"])
def test_every_command_refuses_it(case: str, entry: str, plain: dict[str, Any], marker: Path) -> None:
    key, value = HOSTILE[case]
    run = written(plain, key, filled(value, marker))
    with pytest.raises(ConfigError, match="which a run directory may not"):
        ENTRIES[entry](run)
    assert EVIL not in sys.modules
    assert not marker.exists()
    assert not (run / "status.json").exists()


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_hostile_task_or_tracker_is_not_even_looked_at(entry: str, plain: dict[str, Any], marker: Path) -> None:
    run = written(plain, "task", {**CALL, "_partial_": True})
    if entry != "train":
        (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("altprop.tracking.Console", f"{EVIL}.Model"))
    if entry == "train":
        ENTRIES[entry](run)
    else:
        with pytest.raises(ConfigError, match="checkpoint"):  # it got that far
            ENTRIES[entry](run)
    assert not marker.exists()


def test_a_run_directory_cannot_switch_the_check_off(plain: dict[str, Any], marker: Path) -> None:
    run = written(plain, "model", CALL)
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + "trust_run: true\n")
    with pytest.raises(ConfigError, match="names evil"):
        build(compose([f"run={run}"]))
    assert not marker.exists()


def test_the_switch_allows_it(plain: dict[str, Any], marker: Path) -> None:
    run = written(plain, "model", {"_target_": f"{EVIL}.Model", "_partial_": True})
    with pytest.raises(ConfigError, match="is not a Module"):  # it was imported and is no model
        build(compose([f"run={run}", "trust_run=true"]))
    assert marker.exists()


def test_the_switch_needs_a_run() -> None:
    with pytest.raises(ConfigError, match="there is no run to trust"):
        build(compose(["trust_run=true"]))


FRIENDLY: dict[str, tuple[str, Any]] = {
    "a class of torch.nn": ("model.units", {"_target_": "torch.nn.Mish", "_partial_": True}),
    "an optimizer": ("optimizer", {"_target_": "torch.optim.NAdam", "_partial_": True, "lr": 0.1}),
    "schedulers in a list": (
        "schedule.scheduler",
        {
            "_target_": "torch.optim.lr_scheduler.ChainedScheduler",
            "_partial_": True,
            "schedulers": [{"_target_": "torch.optim.lr_scheduler.StepLR", "_partial_": True, "step_size": 1}],
        },
    ),
    "a loss function of altprop": ("algorithm.loss", {"_target_": "altprop.losses.hinge", "_partial_": True}),
    "a class by a former path": ("algorithm.weights", {"_target_": "altprop.nn.weights.base.Dense"}),
    "a model that no file names": ("model", {"_target_": "altprop.models.ConvNet", "_partial_": True}),
    "a variable": ("dataset.label", "${oc.env:HOME}"),
    "a label": ("tags", ["x-${oc.env:HOME}"]),
    "metrics": ("metrics", {"f1": {"_target_": "torchmetrics.classification.MulticlassF1Score", "_partial_": True}}),
}


@pytest.mark.parametrize("case", FRIENDLY)
def test_what_altprop_and_torch_offer_may_be_named(case: str, plain: dict[str, Any]) -> None:
    run = written(plain, *FRIENDLY[case])
    assert problems_of_run(read_config(run), ["task"]) == []
