"""Trials before the runs of a sweep: the validation split chooses, with the same trials for all; nothing sees the test split."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from altprop.config.compose import JobComposer, config_loader
from altprop.files import write_json
from altprop.problems import ConfigError, RunFailed
from altprop.sweeping.jobs import sweep_runs
from altprop.sweeping.trials import VALIDATION, Trials
from tests.config.catalog import content

PARAMS = ["experiment=field/backprop,field/feedback_alignment", "seed=0,1", "trainer.evaluate_test=end"]
SEARCH = ["optimizer.lr=0.1,0.01", "seed=7", "trainer.evaluate_test=never"]


@pytest.fixture(scope="module")
def composer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobComposer]:
    with config_loader() as loader, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py"])  # Hydra reads the command line of the process
        patch.setenv("ALTPROP_OUTPUTS", str(tmp_path_factory.mktemp("outputs")))
        yield JobComposer(loader.loader, loader.compose("train", [], multirun=True))


def finish(trials: Trials, accuracies: dict[str, float]) -> None:
    """Write the status of every trial: done, with the accuracy of the first of ``accuracies`` that is in its overrides."""
    for run, _ in sweep_runs(trials.composer, trials.jobs):
        text = " ".join(run.overrides)
        value = next(accuracy for words, accuracy in accuracies.items() if all(word in text for word in words.split()))
        assert run.directory is not None
        write_json(Path(run.directory) / "status.json", {"status": "done", "last": {VALIDATION: value}})


def test_each_setting_gets_the_rate_that_its_trials_chose(composer: JobComposer, capsys: pytest.CaptureFixture[str]) -> None:
    trials = Trials(composer, PARAMS, SEARCH, ["trainer.duration=1ep"])
    assert len(trials.jobs) == 4
    assert all("seed=7" in job and "trainer.evaluate_test=never" in job for job in trials.jobs)
    assert trials.unfinished() == 4
    finish(trials, {"backprop lr=0.1": 70.0, "backprop lr=0.01": 60.0, "feedback lr=0.1": 10.0, "feedback lr=0.01": 20.0})
    assert trials.unfinished() == 0
    chosen = {tuple(job[:1]) + tuple(job[-1:]) for job in trials.chosen_jobs()}
    assert chosen == {
        ("experiment=field/backprop", "optimizer.lr=0.1"),
        ("experiment=field/feedback_alignment", "optimizer.lr=0.01"),
    }
    jobs = trials.chosen_jobs()
    assert [job[1] for job in jobs] == ["seed=0", "seed=1"] * 2
    assert all("trainer.evaluate_test=end" in job and "trainer.duration=1ep" in job for job in jobs)
    assert (
        "optimizer.lr=0.01 (validation accuracy with optimizer.lr=0.1: 10.00 %, optimizer.lr=0.01: 20.00 %)"
        in capsys.readouterr().out
    )


def test_a_value_whose_trial_failed_is_not_chosen(composer: JobComposer) -> None:
    trials = Trials(composer, PARAMS, SEARCH, ["trainer.duration=2ep", "optimizer.lr=0.2,0.01"])
    assert not trials.can_choose()
    finish(trials, {"lr=0.2": 70.0, "lr=0.01": 60.0})
    for run, _ in sweep_runs(trials.composer, trials.jobs):
        if "optimizer.lr=0.2" in run.overrides:
            write_json(Path(str(run.directory)) / "status.json", {"status": "failed"})
    assert trials.unfinished() == 0
    assert trials.can_choose()
    assert [job[-1] for job in trials.chosen_jobs()] == ["optimizer.lr=0.01"] * 4
    for run, _ in sweep_runs(trials.composer, trials.jobs):
        write_json(Path(str(run.directory)) / "status.json", {"status": "failed"})
    assert not trials.can_choose()
    with pytest.raises(RunFailed, match="every trial failed"):
        trials.chosen_jobs()


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (["seed=7", "trainer.evaluate_test=never"], "nothing is searched"),
        (["optimizer.lr=0.1,0.01"], "the trials evaluate the test split"),
    ],
)
def test_a_search_without_values_or_on_the_test_split_is_refused(composer: JobComposer, search: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Trials(composer, PARAMS, search, [])


@pytest.mark.parametrize("name", ["field/digits", "field/mnist", "field/fashion_mnist", "field/cifar10"])
def test_the_sweeps_of_the_field_try_the_same_for_every_signal(name: str, composer: JobComposer) -> None:
    sweeper = content("sweep", name)[1]["hydra"]["sweeper"]
    params, search = ([f"{key}={value}" for key, value in sweeper[part].items()] for part in ("params", "search"))
    trials = Trials(composer, params, search, [])
    counts = Counter(word for job in trials.jobs for word in job if word.startswith("experiment="))
    assert len(counts) >= 10
    assert set(counts.values()) == {3}
    for job in trials.jobs:
        assert composer.compose(job).trainer.evaluate_test == "never"
    runs = trials.first_choice()
    assert len(runs) == 3 * len(counts)
    for job in runs:
        config = composer.compose(job)
        assert config.trainer.evaluate_test == "end"
        assert config.dataset.validation.size == 0.1
        assert config.seed != 100
