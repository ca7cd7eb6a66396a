"""A search resumes where it stopped, compares only comparable runs and uses their results."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher

from altprop.commands.entry import entry_point
from altprop.config.compose import JobComposer, config_loader
from altprop.config.project import ROOT
from altprop.files import write_json
from altprop.problems import ConfigError, RunFailed
from altprop.sweeping import search as search_module
from altprop.sweeping.jobs import sweep_runs
from altprop.sweeping.local import REFUSED, is_taken
from altprop.sweeping.search import Search
from altprop.sweeping.space import Space
from altprop.sweeping.submission import SubmissionRefused

optuna = pytest.importorskip("optuna")
CategoricalDistribution, FloatDistribution, IntDistribution = (
    optuna.distributions.CategoricalDistribution,
    optuna.distributions.FloatDistribution,
    optuna.distributions.IntDistribution,
)
TrialState = optuna.trial.TrialState

RATE = "optimizer.lr=tag(log,interval(1e-4,1e-1))"
SPACE = ["trainer.select_on=validation", "dataset.validation.size=500", RATE, "model.hidden=[8],[16]"]
DONE = {"status": "done", "best": {"validation/accuracy": 50.0}}


def space_of(*texts: str) -> Space:
    return Space.of(OverridesParser.create().parse_overrides(list(texts)))


def test_the_sweep_syntax_of_hydra_becomes_the_search_space_of_optuna() -> None:
    space = space_of(
        "a=interval(1,5)",
        "b=int(interval(1,5))",
        "c=tag(log,interval(1e-4,0.1))",
        "d=range(8,64,8)",
        "e=choice([1,2],[3])",
        "f=relu,gelu",
        "g=range(0,1,0.25)",
        "h=3",
        "i=1,2",
        "i=7",
    )
    assert space.searched == {
        "a": FloatDistribution(1.0, 5.0),
        "b": IntDistribution(1, 5),
        "c": FloatDistribution(1e-4, 0.1, log=True),
        "d": IntDistribution(8, 56, step=8),
        "e": CategoricalDistribution(["[1,2]", "[3]"]),
        "f": CategoricalDistribution(["relu", "gelu"]),
        "g": CategoricalDistribution(["0.0", "0.25", "0.5", "0.75"]),
    }
    assert space.overrides({"a": 0.5, "e": "[3]"}) == ["a=0.5", "e=[3]", "h=3", "i=7"]


def test_a_trial_has_every_override_in_the_order_of_the_command_line() -> None:
    space = Space.of(
        OverridesParser.create().parse_overrides(["optimizer=sgd", "optimizer={lr:0.5}", "a=1,2", "~b"]),
        OverridesParser.create().parse_overrides(["c=1", "a=interval(0,1)"]),
    )
    assert space.searched == {"a": CategoricalDistribution(["1", "2"])}
    assert space.overrides({"a": 2}) == ["c=1", "optimizer=sgd", "optimizer={lr:0.5}", "a=2", "~b"]


def test_the_samples_cover_every_choice() -> None:
    samples = list(space_of("a=interval(1,5)", "b=x,y,z", "c=1,2").samples())
    assert samples[0] == {"a": 1.0, "b": "x", "c": "1"}
    assert {sample["b"] for sample in samples} == {"x", "y", "z"}
    assert {sample["c"] for sample in samples} == {"1", "2"}


@pytest.mark.parametrize("text", ["a=interval(5,1)", "a=tag(log,interval(0,1))"])
def test_an_invalid_range(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^a: ") as caught:
        space_of(text)
    assert "\n" not in str(caught.value)


class Pretended(Launcher):
    """Writes the files of finished runs; ``outcome`` returns the status for the overrides of a job."""

    def __init__(self, composer: JobComposer) -> None:
        self.composer = composer
        self.outcome: Callable[[list[str]], dict[str, Any]] = lambda overrides: DONE
        self.launched: list[list[str]] = []

    def setup(self, **arguments: Any) -> None:
        raise AssertionError("no setup is needed")

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        for run, _ in sweep_runs(self.composer, job_overrides):
            self.launched.append(run.overrides)
            write_json(Path(run.directory or "") / "status.json", self.outcome(run.overrides))
        return []


@pytest.fixture
def launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretended]:
    monkeypatch.setattr(sys, "argv", ["train.py"])  # Hydra reads the command line of the process
    monkeypatch.setenv("ALTPROP_OUTPUTS", str(tmp_path / "outputs"))
    with config_loader() as composer:
        yield Pretended(JobComposer(composer.loader, composer.compose("train", [], multirun=True)))


def search(launcher: Pretended, trials: int, *more: str, at_once: int = 2) -> optuna.Study:
    file = Path(os.environ["ALTPROP_OUTPUTS"]) / ".studies" / "scratch.db"
    typed = [text.partition("=")[0] for text in more]
    Search(launcher.composer, launcher, file, trials, at_once).run(
        [*(text for text in SPACE if text.partition("=")[0] not in typed), *more]
    )
    return optuna.load_study(study_name=None, storage=f"sqlite:///{file}")


def rate(overrides: Sequence[str]) -> float:
    [text] = [text for text in overrides if text.startswith("optimizer.lr=")]
    return float(text.partition("=")[2])


def test_the_best_trial_is_that_of_the_highest_accuracy(launcher: Pretended, capsys: pytest.CaptureFixture[str]) -> None:
    launcher.outcome = lambda overrides: {"status": "done", "best": {"validation/accuracy": 100 - rate(overrides)}}
    study = search(launcher, 12)
    assert len(launcher.launched) == 12
    assert study.best_trial.params["optimizer.lr"] == min(map(rate, launcher.launched))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"best of 12: trial {study.best_trial.number}, ")
    assert f"optimizer.lr={study.best_trial.params['optimizer.lr']}" in shlex.split(last)


def test_seeds_repeat_each_trial_and_their_mean_is_maximized(launcher: Pretended, capsys: pytest.CaptureFixture[str]) -> None:
    lucky: list[str] = []

    def outcome(overrides: list[str]) -> dict[str, Any]:
        seed = next(text for text in overrides if text.startswith("seed="))
        lucky.append(seed)
        return {"status": "done", "best": {"validation/accuracy": 90.0 if seed == "seed=2" else 80.0 - rate(overrides)}}

    launcher.outcome = outcome
    study = search(launcher, 4, "seed=range(3)")
    assert lucky == ["seed=0", "seed=1", "seed=2"] * 4
    assert all("seed" not in trial.params for trial in study.trials)
    expected = [(2 * (80.0 - trial.params["optimizer.lr"]) + 90.0) / 3 for trial in study.trials]
    assert [trial.value for trial in study.trials] == pytest.approx(expected)
    last = capsys.readouterr().out.splitlines()[-1]
    assert f", mean of 3 seeds {study.best_value:.2f} % (95 % interval " in last
    with pytest.raises(ConfigError, match=r"hydra.sweeper.params: seed was different"):
        search(launcher, 5, "seed=0,1")
    with pytest.raises(ConfigError, match=r"seed: seed=interval\(0,3\) is an interval.*try: seed=0,1,2"):
        search(launcher, 5, "seed=interval(0,3)")


@pytest.mark.parametrize(("metric", "better"), [("validation/margin", max), ("validation/loss", min)])
def test_the_metric_that_selects_is_optimized(
    metric: str, better: Callable[..., float], launcher: Pretended, capsys: pytest.CaptureFixture[str]
) -> None:
    launcher.outcome = lambda overrides: {"status": "done", "best": {metric: rate(overrides), "validation/accuracy": 50.0}}
    study = search(launcher, 4, f"trainer.select_on={metric}", "seed=0,1")
    assert study.best_value == pytest.approx(better(map(rate, launcher.launched)))
    last = capsys.readouterr().out.splitlines()[-1]
    assert f", mean of 2 seeds {metric} {study.best_value:.4f} (95 % interval " in last
    with pytest.raises(ConfigError, match=r"trainer.select_on.* was different"):
        search(launcher, 5, "trainer.select_on=validation/top5", "seed=0,1")


def test_a_trial_fails_if_one_of_its_seeds_fails(launcher: Pretended) -> None:
    launcher.outcome = lambda overrides: {**DONE, "status": "failed"} if "seed=1" in overrides else DONE
    with pytest.raises(RunFailed, match="no trial of"):
        search(launcher, 1, "seed=0,1")
    assert len(launcher.launched) == 2


def test_a_finished_search_can_be_extended_but_is_not_repeated(launcher: Pretended) -> None:
    before = search(launcher, 3).trials
    assert search(launcher, 3).trials == before
    assert len(launcher.launched) == 3
    after = search(launcher, 5).trials
    assert after[:3] == before
    assert len(launcher.launched) == 5
    assert len({rate(overrides) for overrides in launcher.launched}) == 5


def test_interrupted_trials_resume_first(launcher: Pretended) -> None:
    def die(overrides: list[str]) -> dict[str, Any]:
        if len(launcher.launched) == 4:
            raise KeyboardInterrupt
        return DONE

    launcher.outcome = die
    with pytest.raises(KeyboardInterrupt):
        search(launcher, 6)
    interrupted = launcher.launched[2:]
    launcher.outcome = lambda overrides: DONE
    launcher.launched = []
    study = search(launcher, 6)
    assert launcher.launched[:2] == interrupted
    assert len(launcher.launched) == 4
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 6


def test_a_trial_without_a_complete_set_of_values_is_abandoned(launcher: Pretended) -> None:
    study = search(launcher, 1)
    study.ask({"optimizer.lr": FloatDistribution(1e-4, 1e-1, log=True)})
    study = search(launcher, 3)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]


def test_a_run_that_fails_is_a_failed_trial(launcher: Pretended, capsys: pytest.CaptureFixture[str]) -> None:
    launcher.outcome = lambda overrides: {**DONE, "status": "failed"} if "model.hidden=[8]" in overrides else DONE
    study = search(launcher, 8)
    failed = ["model.hidden=[8]" in overrides for overrides in launcher.launched]
    assert [trial.state == TrialState.FAIL for trial in study.trials] == failed
    assert 0 < sum(failed) < 8
    assert f"best of {8 - sum(failed)}: " in capsys.readouterr().out


def test_a_search_in_which_every_run_fails(launcher: Pretended) -> None:
    launcher.outcome = lambda overrides: {"status": "failed"}
    with pytest.raises(RunFailed, match="no trial of"):
        search(launcher, 2)


def test_another_search_needs_another_study(launcher: Pretended) -> None:
    before = search(launcher, 1).trials
    others = {
        "optimizer.lr=interval(0.1,0.2)": "optimizer.lr was different",
        "model.hidden=[8]": "model.hidden was different",
        "optimizer.weight_decay=0.0,0.1": "optimizer.weight_decay was different",
        "trainer.duration=7ep": "a setting that is not searched was different",
    }
    for more, message in others.items():
        with pytest.raises(ConfigError) as caught:
            search(launcher, 2, more)
        [problem] = caught.value.problems
        assert message in problem.description
        assert problem.fix == "group=<another name>"
    assert search(launcher, 1, "logger=all", "trainer.device=cpu").trials == before  # these do not change results


def test_two_commands_on_one_study(launcher: Pretended) -> None:
    study = Path(os.environ["ALTPROP_OUTPUTS"]) / ".studies" / "scratch.db"
    study.parent.mkdir(parents=True)
    with FileLock(f"{study}.lock"), pytest.raises(RunFailed, match="another command is using"):
        search(launcher, 1)


@pytest.mark.parametrize(
    "error", [RunFailed("every run is refused", REFUSED), ConfigError([]), SubmissionRefused("no partition")]
)
def test_a_study_without_a_started_run_is_removed(error: Exception, launcher: Pretended, tmp_path: Path) -> None:
    def refuse(job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        raise error

    launcher.launch = refuse  # type: ignore[method-assign]
    with pytest.raises(type(error)):
        search(launcher, 2)
    assert list(tmp_path.iterdir()) == []


def test_jobs_that_slurm_refuses_are_submitted_again(launcher: Pretended) -> None:
    search(launcher, 1)
    launch = launcher.launch

    def refuse(job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        raise SubmissionRefused("the queue is full")

    launcher.launch = refuse  # type: ignore[method-assign]
    with pytest.raises(SubmissionRefused):
        search(launcher, 3)
    launcher.launch = launch  # type: ignore[method-assign]
    assert [trial.state for trial in search(launcher, 3).trials] == [TrialState.COMPLETE] * 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("optimizer.lr=0.1 model.hidden=[8] model/units=relu", "hydra.sweeper.params: nothing is searched"),
        ("model/units=relu,reluu", "model/units: there is no choice 'reluu'"),
        ("trainer.select_on=auto", "trainer.select_on: auto; validation (or test) in a search"),
        ("task=validate", "task: it has no run directory"),
        ("hydra.sweeper.trials=many", "hydra.sweeper.trials: many; a whole number from 1 on"),
        ("hydra.sweeper.max_batch_size=0", "hydra.sweeper.max_batch_size: 0; a whole number from 1 on"),
        ("optimizer.lr=interval(1,0.1)", "optimizer.lr: `low <= high` must hold"),
    ],
)
def test_an_invalid_search_leaves_nothing_behind(
    more: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "sweep=quick/search", *more.split()])
    monkeypatch.setenv("ALTPROP_OUTPUTS", str(tmp_path / "outputs"))
    with pytest.raises(SystemExit) as left:
        entry_point("train", print)
    assert left.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_without_optuna_one_line_says_what_to_install(launcher: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError) as caught:
        search(launcher, 1)
    [problem] = caught.value.problems
    assert problem.fix == search_module.INSTALL


def test_a_killed_search_resumes(tmp_path: Path) -> None:
    """After ``kill -9`` of a search in the middle of a run, the next command resumes that run."""
    script = [sys.executable, str(ROOT / "train.py"), "-m", "sweep=quick/search", "hydra.sweeper.trials=2"]
    tiny = ["trainer.device=cpu", "trainer.figures=false", "trainer.threads=1", "~logger"]
    command = [*script, "hydra.sweeper.max_batch_size=1", "trainer.duration=3ep", *tiny]
    environment = {**os.environ, "ALTPROP_OUTPUTS": str(tmp_path), "OMP_NUM_THREADS": "1"}
    file = tmp_path / ".studies" / "quick-search.db"
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    trained = tmp_path / "search" / "mnist_sample"
    while len(list(trained.glob("*/status.json"))) < 2:
        assert first.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = optuna.load_study(study_name=None, storage=f"sqlite:///{file}").trials
    assert [trial.state for trial in before] == [TrialState.COMPLETE, TrialState.RUNNING]
    second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert second.returncode == 0, second.stderr
    assert "1 of 2 trials have ended, 1 are running" in second.stdout
    after = optuna.load_study(study_name=None, storage=f"sqlite:///{file}").trials
    assert after[0] == before[0]
    assert after[1].params == before[1].params
    assert [trial.state for trial in after] == [TrialState.COMPLETE] * 2
    assert len(list(trained.iterdir())) == 2
    _, _, line = second.stdout.splitlines()[-1].partition(": python train.py ")
    best = subprocess.run([*script[:2], *shlex.split(line)], env=environment, capture_output=True, text=True, timeout=100)
    assert best.returncode == 0, best.stderr
    assert len(list(trained.iterdir())) == 2  # the best run is one of these


def test_a_run_that_another_process_trains_is_taken(launcher: Pretended) -> None:
    [(run, _)] = list(sweep_runs(launcher.composer, [["seed=5"]]))
    assert not is_taken(run)
    lock = Path(run.directory or "") / ".lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        assert is_taken(run)
    assert not is_taken(run)
