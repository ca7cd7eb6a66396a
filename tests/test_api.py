"""The Python API: calls give what commands give, mistakes are exceptions, and runs of one process do not influence each other."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra

import altprop
from altprop import ConfigError, Run
from altprop.training.checkpoint import read_checkpoint
from tests.algorithms.harness import assert_equal

TINY = ("model.hidden=[8]", "dataset.limit_train=200", "dataset.limit_test=100", "trainer.figures=false")
PAIR = (
    ("trainer.threads=1", "trainer.deterministic=true", "algorithm=target_propagation", "model/units=sign_step"),
    ("seed=3", "model=convnet", "model.channels=[4,pool]"),
)


@pytest.fixture(autouse=True)
def unchanged_process() -> Iterator[None]:
    """Everything that a run sets for its process is as before."""

    def state() -> list[object]:
        flags = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
        return [list(sys.argv), torch.get_num_threads(), *flags, torch.get_rng_state().tolist(), GlobalHydra.instance().hydra]

    handlers, before = list(logging.getLogger("altprop").handlers), state()
    yield
    assert state() == before
    logging.getLogger("altprop").handlers = handlers


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"paths.outputs={tmp_path_factory.mktemp('outputs')}"


@pytest.fixture(scope="module")
def run(outputs: str) -> Run:
    return altprop.train(*TINY, "trainer.duration=2ep", outputs)


def test_a_run_has_everything_about_it(run: Run) -> None:
    assert (run.status, run.seed, run.name, run.error) == ("done", 0, "scratch", "")
    assert run.directory == Path(run.config["paths"]["outputs"], run.name, run.key)
    assert [record["epoch"] for record in run.metrics] == [1, 2]
    assert run.last["test/accuracy"] == run.metrics[-1]["test/accuracy"]
    assert list(run.frame()["epoch"]) == [1, 2]
    assert f"done, test accuracy {run.last['test/accuracy']:.2f} %" in repr(run)


def test_the_same_call_finds_the_run_done(run: Run, outputs: str) -> None:
    before = (run.directory / "metrics.jsonl").stat().st_mtime_ns
    assert altprop.train(*TINY, "trainer.duration=2ep", outputs) == run
    assert (run.directory / "metrics.jsonl").stat().st_mtime_ns == before


def test_a_directory_without_a_run_is_not_started(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert (run.status, run.metrics, run.last) == ("not started", (), {})
    with pytest.raises(ConfigError, match="is not a run"):
        _ = run.config


def test_the_trained_model_answers_for_tensors(run: Run) -> None:
    model = run.load(device="cpu")
    pixels = torch.randint(256, (5, *model.input_shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scores = model(pixels)
    assert scores.shape == (5, 10)
    assert not scores.is_inference()
    assert torch.equal(model.classify(pixels), scores.argmax(dim=1))
    data_set = run.config["dataset"]
    mean, std = (torch.tensor(data_set.get(name, [0.0])).view(-1, 1, 1) for name in ("mean", "std"))
    if "mean" in data_set:
        torch.testing.assert_close(model((pixels / 255 - mean) / std), scores)
    assert isinstance(model.model, torch.nn.Module)
    assert len(model.class_names) == 10
    for wrong in (pixels[0], pixels[..., 1:], pixels.long()):
        with pytest.raises(ValueError, match="images of"):
            model(wrong)


def test_the_trained_model_is_the_one_that_was_evaluated(run: Run) -> None:
    result = altprop.evaluate(run, "device=cpu", "figures=false")
    assert result["accuracy"] == run.last["test/accuracy"]
    assert altprop.evaluate(run.directory, "split=train", "figures=false")["samples"] == 200


def test_a_finished_run_gets_further_metrics(run: Run) -> None:
    ce = "{_target_: torch.nn.functional.cross_entropy, _partial_: true}"
    result = altprop.evaluate(run, "metrics=top5", f"+metrics.ce_loss={ce}", "device=cpu", "figures=false")
    assert run.last["test/accuracy"] < 100 * result["top5"] / (100 if result["top5"] > 1 else 1) <= 100
    assert result["ce_loss"] == pytest.approx(result["loss"], rel=1e-5)
    assert "top5" not in run.last
    by_key = altprop.evaluate(run.key, f"paths.outputs={run.directory.parents[1]}", "device=cpu", "figures=false")
    assert by_key["loss"] == result["loss"]
    for wrong, message in (
        ("metrics=tpo5", "metrics"),
        ("+metrics.loss={_target_: torch.nn.functional.cross_entropy}", "metrics.loss"),
    ):
        with pytest.raises(ConfigError, match=message):
            altprop.evaluate(run, wrong)
    with pytest.raises(ConfigError, match=r"checkpoint: best is not in"):
        run.load("best")


def test_runs_are_found_by_name(run: Run) -> None:
    folder = run.directory.parents[1]
    for patterns in ((), ("scratch",), ("nothing/*", f"scratch/{run.key}")):
        assert run in altprop.runs(*patterns, outputs=folder)
    assert altprop.runs("nothing/*", outputs=folder) == []


def test_a_sweep_in_this_process_returns_its_runs(run: Run, outputs: str) -> None:
    found = altprop.sweep("seed=0,1", "cluster=inline", *TINY, "trainer.duration=2ep", outputs)
    assert found[0] == run
    assert [(each.seed, each.status) for each in found] == [(0, "done"), (1, "done")]
    with pytest.raises(ConfigError, match=r"trainer\.keep: -1"):
        altprop.sweep("seed=0,1", "cluster=inline", "trainer.keep=-1", outputs)


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (("trainer.epohcs=3", "model.hidden=x", "modle=mlp"), ["trainer.epohcs", "modle", "model.hidden"]),
        (("trainer.duration=3", "model/units=sign_step"), ["trainer.duration"]),
        (("--cfg", 3), ["overrides", "overrides"]),
        (("sweep=quick/search",), ["sweep=quick/search"]),
        (("cluster=slurm",), ["cluster=slurm"]),
        (("seed=0,1",), ["seed"]),
        (("run=/nowhere",), ["run"]),
    ],
)
def test_mistakes_are_exceptions_with_every_problem(overrides: tuple[str, ...], keys: list[str], tmp_path: Path) -> None:
    arguments = [*overrides, f"paths.outputs={tmp_path}"]
    with pytest.raises(ConfigError) as caught:
        altprop.train(*arguments)
    assert [problem.key for problem in caught.value.problems] == keys
    assert altprop.validate(*arguments) == caught.value.problems
    assert list(tmp_path.iterdir()) == []


def test_a_list_of_values_points_to_sweep() -> None:
    [problem] = altprop.validate("seed=0,1")
    assert problem.fix == 'altprop.sweep("seed=0,1")'


def test_a_valid_configuration_has_no_problems(tmp_path: Path) -> None:
    assert altprop.validate(*TINY, f"paths.outputs={tmp_path}") == []
    assert list(tmp_path.iterdir()) == []


def test_compose_returns_plain_containers() -> None:
    config = altprop.compose("model=convnet", "seed=4", "trainer.duration=3ep")
    assert (config["seed"], config["trainer"]["duration"], type(config["model"])) == (4, "3ep", dict)
    with pytest.raises(ConfigError, match="dataset: there is no choice 'mnits'"):
        altprop.compose("dataset=mnits")


def test_hydra_can_be_used_around_and_beside_it() -> None:
    with initialize_config_module("altprop.conf", version_base=None):
        before = compose("train", ["model=convnet"])
        assert altprop.compose("model=mlp")["model"]["_target_"] == "altprop.models.MLP"
        assert compose("train", ["model=convnet"]) == before
    assert before.model._target_ == "altprop.models.ConvNet"


def test_two_runs_of_one_process_equal_those_of_two_processes(tmp_path: Path) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    runs = [altprop.train(*TINY[1:], "trainer.duration=1ep", *words, f"paths.outputs={here}") for words in PAIR]
    second = [*TINY[1:], "trainer.duration=1ep", *PAIR[1], f"paths.outputs={elsewhere}"]
    subprocess.run([sys.executable, "-m", "altprop", "train", *second], check=True, capture_output=True)
    [other] = altprop.runs(outputs=elsewhere)
    assert other.key == runs[1].key
    mine, theirs = (read_checkpoint(each.directory / "checkpoints" / "last.pt") for each in (runs[1], other))
    assert_equal(mine["algorithm"], theirs["algorithm"])
    assert_equal(mine["random"], theirs["random"])


def test_an_interrupted_call_is_a_keyboard_interrupt_and_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from altprop.training.loop import Loop

    arguments = (*TINY, "trainer.duration=2ep", f"paths.outputs={tmp_path}")
    train = Loop.run
    with monkeypatch.context() as patched:
        patched.setattr(Loop, "run", lambda loop, requests: (os.kill(os.getpid(), signal.SIGINT), train(loop, requests)))
        with pytest.raises(KeyboardInterrupt):
            altprop.train(*arguments)
    [run] = altprop.runs(outputs=tmp_path)
    assert run.status == "interrupted"
    assert altprop.train(*arguments).status == "done"


def test_importing_altprop_is_light() -> None:
    code = "import sys, altprop; altprop.__version__; assert not {'torch', 'hydra', 'numpy', 'yaml'} & sys.modules.keys()\n"
    code += "altprop.validate; assert not {'torch', 'pydantic'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
