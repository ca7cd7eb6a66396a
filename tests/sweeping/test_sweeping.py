"""Sweeps: their runs, local worker processes, and snapshots of the code for jobs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf
from submitit.core.utils import FailedJobError
from submitit.helpers import CommandFunction

from altprop.code_state import code_state
from altprop.commands.status import row_of
from altprop.config.compose import JobComposer, config_loader
from altprop.config.project import ROOT
from altprop.files import write_json
from altprop.problems import ConfigError
from altprop.sweeping import local, slurm, snapshot, submission
from altprop.sweeping.checks import problems_of_cluster
from altprop.sweeping.jobs import Manifest, SweepRun, manifests, sweep_runs, unlisted
from altprop.sweeping.local import objective_of, worker_slots
from altprop.sweeping.outcome import settle_killed
from altprop.sweeping.queue import Queue, jobs_of
from tests.slurm.jobs import DIVERGING

TINY = ["trainer.duration=1ep", "trainer.limit_batches=2", "trainer.figures=false", "model.hidden=[8]", "trainer.device=cpu"]


@pytest.fixture(autouse=True)
def no_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra reads the command line of the process."""
    monkeypatch.setattr(sys, "argv", ["train.py"])


def command(outputs: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ALTPROP_OUTPUTS": str(outputs), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, str(ROOT / "train.py"), "-m", *TINY, *arguments]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=280)


def test_the_composer_of_jobs_agrees_with_hydra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shortcut gives the same configurations as Hydra for any overrides in any order."""
    jobs = [
        ["model=mlp", "seed=1", "optimizer.lr=0.1"],
        ["model=mlp", "seed=2", "optimizer.lr=0.2"],
        ["model=convnet4", "seed=2", "optimizer.lr=0.2"],
        ["experiment=baseline/mnist_mlp", "seed=3", "trainer.duration=3ep"],
        ["experiment=baseline/mnist_mlp", "seed=4", "+optimizer.added=true"],
        ["model=mlp", "model.hidden=[3,4]", "name=x${seed}"],
    ]
    with config_loader() as composer:
        master = composer.compose("train", [], multirun=True)
        mine = JobComposer(composer.loader, master)
        for overrides in jobs:
            config, expected = mine.compose(overrides), composer.loader.load_sweep_config(master, overrides)
            for key in expected:
                if key != "hydra":
                    assert config[key] == expected[key], (overrides, key)
        assert len(mine._composed) == 5


def test_runs_are_distinguished_by_what_they_compute(tmp_path: Path) -> None:
    with config_loader() as composer:
        master = composer.compose("train", [f"paths.outputs={tmp_path}"], multirun=True)
        jobs = [[f"paths.outputs={tmp_path}", *more] for more in (["seed=0"], ["seed=1"], ["seed=0", "logger=all"])]
        runs = [run for run, finished in sweep_runs(JobComposer(composer.loader, master), jobs) if not finished]
        assert [run.seed for run in runs] == [0, 1]
        [line] = unlisted(jobs, runs)
        assert line.startswith("1 of 3 combinations is the same run as others")
        assert list(unlisted(jobs[:2], runs)) == []
        assert runs[0].arguments[-1] == "hydra.mode=RUN"
        write_json(Path(runs[0].directory or "") / "status.json", {"status": "done"})
        assert [finished for _, finished in sweep_runs(JobComposer(composer.loader, master), jobs)] == [True, False]
        restarted = [[*jobs[0], "resume=false"]]
        assert [finished for _, finished in sweep_runs(JobComposer(composer.loader, master), restarted)] == [False]


def test_a_local_sweep_continues_after_a_failure_and_skips_finished_runs(tmp_path: Path) -> None:
    first = command(tmp_path, *DIVERGING, "seed=0", "optimizer.lr=0.01,1000", "trainer.duration=4ep")
    assert first.returncode == 1
    assert "failed: RunFailed: the loss became" in first.stderr
    manifest = next(manifests(tmp_path))
    assert [run.status["status"] for run in manifest.runs] == ["done", "failed"]
    again = command(tmp_path, *DIVERGING, "seed=0", "optimizer.lr=0.01", "trainer.duration=4ep")
    assert again.returncode == 0, again.stderr
    assert "1 runs, 1 done already" in again.stdout


def test_batches_share_one_list_of_runs_and_continue_after_a_failure(tmp_path: Path) -> None:
    swept = command(
        tmp_path, *DIVERGING, "seed=0", "optimizer.lr=1000,0.01", "trainer.duration=4ep", "hydra.sweeper.max_batch_size=1"
    )
    assert swept.returncode == 1
    assert "failed: RunFailed: the loss became" in swept.stderr
    [manifest] = manifests(tmp_path)
    assert [run.status["status"] for run in manifest.runs] == ["failed", "done"]
    assert [Path(run.log or "").name for run in manifest.runs] == ["0.log", "1.log"]


def test_a_local_sweep_whose_runs_are_all_refused_leaves_nothing_behind(tmp_path: Path) -> None:
    refused = command(tmp_path / "outputs", "trainer.duration=3,4")
    assert refused.returncode == 2
    for duration, line in zip((3, 4), refused.stderr.splitlines(), strict=True):
        overrides, _, problem = line.partition(": ")
        assert f"trainer.duration={duration}" in overrides.split()
        assert problem.startswith(f"trainer.duration: {duration} is refused")
    assert list(tmp_path.iterdir()) == []


def test_each_worker_has_its_own_gpu_or_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    def slots(gpus: list[str], **changes: object) -> list[dict[str, str]]:
        monkeypatch.setattr(local, "visible_gpus", lambda: gpus)
        settings = {"device": "auto", "workers": None, "per_gpu": 1, "cores": 1, "processes": 1, **changes}
        settings = {"nodes": 1, "gpus": 0, "memory": None, **settings}
        return worker_slots(
            OmegaConf.create(
                {
                    "resources": {name: settings[name] for name in ("nodes", "processes", "gpus", "cores", "memory")},
                    "trainer": {"device": settings["device"]},
                    "cluster": {"workers": settings["workers"], "per_gpu": settings["per_gpu"]},
                }
            )
        )

    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots(["0", "3"])] == ["0", "3"]
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots(["0", "3"], workers=4)] == ["0", "3", "0", "3"]
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots(["0", "3"], per_gpu=2)] == ["0", "3", "0", "3"]
    for gpus, changes in ((["0"], {"workers": 3}), ([], {}), (["0"], {"device": "cpu"}), (["0"], {"per_gpu": 0})):
        with pytest.raises(ConfigError, match=r"cluster\.per_gpu"):
            slots(gpus, **{"per_gpu": 2, **changes})
    assert slots(["0"], device="cpu", workers=2) == [{"OMP_NUM_THREADS": "1"}] * 2
    assert len(slots([], cores=10_000)) == 1
    for several in ({"processes": 2}, {"nodes": 2}):
        with pytest.raises(ConfigError, match="torchrun"):
            slots([], **several)
    for key, value in (("workers", 0), ("workers", -1), ("cores", 0)):
        with pytest.raises(ConfigError, match=f"{key}: {value}; a whole number from 1 on"):
            slots([], **{key: value})


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            -signal.SIGKILL,
            "killed, most likely by the system because it was out of memory; the same command resumes it; let fewer",
        ),
        (-signal.SIGSEGV, "killed by signal 11 (Segmentation fault); its log may say why; the same command resumes it"),
        (-signal.SIGRTMIN - 1, "killed by signal 35"),
    ],
)
def test_a_killed_worker_is_reported_as_killed(code: int, words: str, tmp_path: Path) -> None:
    run = SweepRun(["seed=0"], [], str(tmp_path), 0)
    write_json(tmp_path / "status.json", {"status": "running", "step": 3})
    settle_killed(run, code, time.time())
    assert (run.status["status"], run.status["step"]) == ("failed", 3)
    assert run.status["error"].startswith(words)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("cluster.time", 0, "a whole number from 1 on"),
        ("cluster.time", -1, "a whole number from 1 on"),
        ("cluster.time", 2, "2 min is not longer than cluster.signal_delay, 120 s"),
        ("cluster.max_timeouts", -1, "a whole number from 0 on"),
        ("cluster.at_once", 0, "a whole number from 1 on"),
        ("cluster.per_gpu", 0, "a whole number from 1 on"),
        ("cluster.per_gpu", 2, "2, but a run has no GPU"),
        ("resources.cores", 0, "a whole number from 1 on"),
        ("resources.memory", 0, "a whole number from 1 on"),
        ("resources.gpus", -1, "a whole number from 0 on"),
        ("paths.outputs", "/a%b", "contains '%'"),
    ],
)
def test_settings_of_a_cluster_are_checked(key: str, value: object, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = cluster_config(monkeypatch)
    OmegaConf.update(config, key, value)
    [found] = problems_of_cluster(config)
    assert found.key == key
    assert problem in str(found)


def test_a_pack_of_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = cluster_config(monkeypatch)
    OmegaConf.update(config, "cluster.per_gpu", 2)
    for resources in ({"gpus": 4}, {"gpus": 1, "processes": 2}, {"gpus": 1, "nodes": 2}):
        [found] = problems_of_cluster(OmegaConf.merge(config, {"resources": resources}))
        assert "several processes or GPUs" in found.description
    assert not list(problems_of_cluster(OmegaConf.merge(config, {"resources": {"gpus": 1}})))


def test_a_machine_without_slurm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = cluster_config(monkeypatch)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    [found] = problems_of_cluster(config)
    assert "there is no sbatch here" in found.description
    assert found.fix == "cluster=local"


@pytest.mark.parametrize(
    ("word", "age", "verdict"), [("interrupted", 60, "failed"), ("interrupted", -1, "interrupted"), ("done", 60, "done")]
)
def test_an_older_status_is_not_that_of_the_killed_worker(word: str, age: float, verdict: str, tmp_path: Path) -> None:
    run, started = SweepRun(["seed=0"], [], str(tmp_path), 0), time.time()
    moment = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(started - age))
    write_json(tmp_path / "status.json", {"status": word, "updated_at": moment})
    settle_killed(run, -signal.SIGKILL, started)
    assert run.status["status"] == verdict


@pytest.mark.parametrize(
    ("said", "problem", "unclear"),
    [
        (
            "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
            "did not say .*: Batch job",
            True,
        ),
        ("sbatch: error: Unable to contact slurm controller (connect failure)", "did not say", True),
        ('Could not make sense of "nonsense"\nJob instance', 'did not say .*: Could not make sense of "nonsense" Job', True),
        ("", "did not say whether it took the jobs: sbatch printed nothing; the same command finds", True),
        ("sbatch: error: Invalid qos specification", "refused the jobs: Invalid qos specification; try: cluster.qos=", False),
    ],
)
def test_a_submission_without_an_answer_is_no_refusal(
    said: str, problem: str, unclear: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM may have taken the jobs, so the next command looks for them before it submits them again."""

    def submit(*arguments: object) -> str:
        with submission.refusals():
            raise FailedJobError(said)

    monkeypatch.setattr(slurm, "submit_runs", submit)
    run = SweepRun(["seed=0"], [], str(tmp_path / "run"), 0, submitting=True)
    with pytest.raises(submission.SubmissionRefused, match=problem) as refusal:
        slurm._submit(Manifest(tmp_path, "group", "slurm", [run]), [[run]], {}, tmp_path)
    assert isinstance(refusal.value, submission.SubmissionUnclear) is unclear
    assert len(str(refusal.value).splitlines()) == 1
    assert run.submitting is unclear
    assert (run.refused is None) is unclear


def cluster_config(monkeypatch: pytest.MonkeyPatch) -> DictConfig:
    """The settings that a sweep on SLURM is checked for."""
    monkeypatch.setattr(shutil, "which", lambda name: name)
    cluster = OmegaConf.load(ROOT / "conf/cluster/slurm.yaml").cluster
    resources = {"processes": 1, "nodes": 1, "gpus": 0, "cores": 2, "memory": None}
    config = OmegaConf.create({"cluster": cluster, "resources": resources, "paths": {"outputs": "/outputs"}})
    assert isinstance(config, DictConfig)
    return config


def test_a_snapshot_of_the_code_is_complete_and_knows_its_commit(tmp_path: Path) -> None:
    copy = snapshot.take_snapshot(tmp_path)
    assert (copy / "src/altprop/commands/entry.py").read_text() == (ROOT / "src/altprop/commands/entry.py").read_text()
    assert (copy / "conf/sweep").is_symlink()
    assert code_state(copy / "src/altprop")[0] == code_state(ROOT / "src/altprop")[0]
    assert snapshot.take_snapshot(tmp_path) == copy or len(list(tmp_path.iterdir())) == 2  # the code was edited in between


def test_a_refused_run_is_failed_and_not_waiting(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    run = SweepRun(["seed=0"], [], str(tmp_path / "scratch" / "key"), 0, log=str(log))
    assert row_of(run, Queue())["state"] == "waiting"
    log.write_text("trainer.keep: -1; at least 0\n")
    run.code = 2
    row = row_of(run, Queue())
    assert (row["state"], row["reason"]) == ("failed", "trainer.keep: -1; at least 0")


def test_job_ids_of_slurm_are_expanded() -> None:
    assert jobs_of("12") == ["12"]
    assert jobs_of("12_3") == ["12_3"]
    assert jobs_of("12_[4-6,8%2]") == ["12_4", "12_5", "12_6", "12_8"]


def test_manifests_are_read_as_they_were_written(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path, "g", "slurm", [SweepRun(["seed=0"], ["seed=0"], None, 0, "1_0", "log")], "1")
    manifest.write()
    assert Manifest.read(tmp_path) == manifest
    assert json.loads((tmp_path / "runs.json").read_text())["job"] == "1"
    assert Manifest.read(tmp_path / "nothing") is None


def test_the_sweep_for_wandb_agents_produces_valid_command_lines(tmp_path: Path) -> None:
    sweep = yaml.safe_load((ROOT / "sweeps/wandb/learning_rate.yaml").read_text())
    values = {name: space["values"][-1] if "values" in space else space["max"] for name, space in sweep["parameters"].items()}
    places = {"${env}": [], "${interpreter}": [sys.executable], "${program}": [str(ROOT / sweep["program"])]}
    places["${args_no_hyphens}"] = [f"{name}={value}" for name, value in values.items()]
    line = [part for word in sweep["command"] for part in places.get(word, [word])]
    environment = {**os.environ, "ALTPROP_OUTPUTS": str(tmp_path)}
    checked = [*line, "task=validate", "logger.wandb.mode=offline"]
    done = subprocess.run(checked, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("valid: baseline/mnist_mlp")


def test_the_objective_of_a_search() -> None:
    assert objective_of({}) is None
    assert objective_of({"last": {"test/accuracy": 1.0}}) == 1.0
    assert objective_of({"last": {"validation/accuracy": 1.0}, "best": {"validation/accuracy": 2.0, "test/accuracy": 3.0}}) == 2.0


def test_the_job_of_the_tables_reads_the_runs_where_the_sweep_wrote_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs in the copy of the code, whose default folder of runs is another one."""
    submitted: list[CommandFunction] = []

    def submit(function: CommandFunction) -> SimpleNamespace:
        submitted.append(function)
        return SimpleNamespace(job_id="2")

    executor = SimpleNamespace(update_parameters=lambda **parameters: None, submit=submit)
    monkeypatch.setattr(submission, "_executor", lambda *arguments: executor)
    parameters = {**dict.fromkeys(submission.SITE), "mem_gb": 1, "additional_parameters": {}}
    manifest = Manifest(tmp_path / "out" / ".sweeps" / "now", "group", "slurm", [], "1")
    assert submission.submit_table(manifest, tmp_path / "out", ["1"], parameters, tmp_path / "copy") == "2"
    assert f"paths.outputs={tmp_path / 'out'}" in submitted[0].command


def test_two_sweeps_of_the_same_runs_at_the_same_moment(tmp_path: Path) -> None:
    line = [sys.executable, str(ROOT / "train.py"), "-m", *TINY, "seed=33,34"]
    environment = {**os.environ, "ALTPROP_OUTPUTS": str(tmp_path), "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=280) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert [run.status["status"] for manifest in manifests(tmp_path) for run in manifest.runs] == ["done"] * 4
