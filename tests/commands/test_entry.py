"""The command line as users see it: printed lines, exit codes and files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from altprop.commands.entry import Job, entry_point
from altprop.commands.train import check_task
from altprop.config.project import ROOT
from altprop.problems import ConfigError, Problem, RunFailed

CommandLine = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    """Run a command line with a task and return the exit code and the lines on stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setenv("ALTPROP_OUTPUTS", str(tmp_path / "outputs"))

    def call(
        *arguments: str, run: Callable[[DictConfig], object] = lambda config: None, **options: object
    ) -> tuple[int, list[str]]:
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        code = 0
        try:
            entry_point("train", run, **options)  # type: ignore[arg-type]
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, capsys.readouterr().err.splitlines()

    return call


MISTAKES = {
    "trainer.kep=3": ("trainer.kep", "try: trainer.keep=3"),
    "trainer.epohcs=3": ("trainer.epohcs", "try: trainer.duration=3ep"),
    "lr=0.1": ("lr", "try: optimizer.lr=0.1"),
    "modle=mlp": ("modle", "try: model=mlp"),
    "model=mpl": ("model", "try: model=mlp"),
    "algorithm/weights=dnese": ("algorithm/weights", "try: algorithm/weights=dense"),
    "model/unit=relu": ("model/unit", "try: model/units=relu"),
    "experiment=baseline/mnist_mpl": ("experiment", "try: experiment=baseline/mnist_mlp"),
    "experiment=nobody/nothing": ("experiment", "its choices: baseline/…"),
    "trainer.log_every=abc": ("trainer.log_every", "it must be a whole number"),
    "seed=1.5": ("seed", "it must be a whole number"),
    "trainer.keep_epochs=[null]": ("trainer.keep_epochs", "it must be a whole number"),
    "trainer.keep_epochs=3": ("trainer.keep_epochs", "it must be a list"),
    "x==": ("command line", "'x==' cannot be parsed"),
    "trainer.duration": ("trainer.duration", "try: trainer.duration=10ep"),
    "seed=0,1": ("seed", "try: -m seed=0,1"),
    "~foo": ("foo", "there is no such key"),
    "+trainer.duration=3ep": ("trainer.duration", "try: trainer.duration=3ep"),
    "optimizer.fused=true": ("optimizer.fused", "try: +optimizer.fused=true"),
    "trainer=null": ("trainer", "its choices: default"),
    "trainer.early_stopping.patience=3": ("trainer.early_stopping.patience", "try: trainer.early_stopping={patience:3}"),
    "hydra/launcher=nowhere": ("hydra/launcher", "basic"),
    "optimizer={momentum:0.5}": ("optimizer.momentum", "there is no such key; keys of optimizer: lr, betas"),
    "optimizer={lrr:0.5}": ("optimizer.lrr", "try: optimizer.lr=0.5"),
    "+experiment=baseline/mnist_mlp": (
        "experiment",
        "has a choice already; + adds a group that has none; try: experiment=baseline/",
    ),
    "dataset.workers=2": ("dataset.workers", "it is a key of dataset=cifar10_jpeg, image_folder, imagenet; keys of dataset: "),
    "trainer.clip_norm=None": ("trainer.clip_norm", "it must be a number or null; try: trainer.clip_norm=null"),
    "name=a=b": ("command line", "try: \"name='a=b'\""),
    "optimizer.lr=choice(null,1.0)": ("command line", "try: optimizer.lr=null,1.0"),
    "sweep=quick/hard_units,quick/graded_units": ("sweep", "it takes one"),
    "name=a\nb": ("command line", "cannot be parsed"),
    "hydra.run.dir=elsewhere": ("hydra.run.dir", "try: paths.outputs=elsewhere"),
    "--multrun": ("command line", "try: --multirun"),
}


@pytest.mark.parametrize("override", MISTAKES)
def test_a_mistake_is_one_line_with_its_key(override: str, train: CommandLine, tmp_path: Path) -> None:
    key, message = MISTAKES[override]
    code, lines = train(override)
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith(f"{key}: ")
    assert message in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_all_mistakes_of_a_command_line_are_reported_at_once(train: CommandLine) -> None:
    code, lines = train("trainer.kep=3", "model=mpl", "seed=x", "schedule.intervall=step", "x==")
    assert code == 2
    assert sorted(line.partition(":")[0] for line in lines) == [
        "command line",
        "model",
        "schedule.intervall",
        "seed",
        "trainer.kep",
    ]


def test_the_valid_part_is_checked_too(train: CommandLine) -> None:
    code, lines = train("trainer.kep=3", "model.hidden=x", check=check_task)
    assert code == 2
    assert [line.partition(":")[0] for line in lines] == ["trainer.kep", "model.hidden"]


def test_a_broken_file_is_reported_by_name(train: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "more" / "model"
    folder.mkdir(parents=True)
    (folder / "broken.yaml").write_text("hidden: [3\n")
    code, [line] = train("--config-dir", "more", "model=broken")
    assert code == 2
    assert "broken.yaml, line 2" in line


@pytest.mark.parametrize(
    "override",
    [
        "seed=0,1 model=mlp,mpl",
        "seed=0,1 trainer.keep=1,x",
        "seed=0,1 x==",
        "seed=0,1 trainer.kep=1,2",
        "optimizer.lr=interval(0,1)",
        "seed=0,1 paths.outputs='~/x'",
        "seed=range(3,1)",
        "sweep=quick/hard_units,quick/graded_units",
    ],
)
def test_mistakes_of_a_sweep_leave_nothing_behind(override: str, train: CommandLine, tmp_path: Path) -> None:
    code, lines = train("-m", *override.split())
    assert (code, len(lines)) == (2, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            "optimizer=sgd,adam +optimizer.weight_decay=0,0.1",
            "optimizer.weight_decay: already exists; + adds a new key, ++ adds or",
        ),
        ("model=mlp,vgg11 model.hidden=[3] seed=0", "model.hidden: there is no such key"),
        ("seed=0,1 trainer.keep=1,x", "trainer.keep: 'x' does not fit"),
    ],
)
def test_the_override_that_fails_in_a_job_is_blamed(arguments: str, line: str, train: CommandLine, tmp_path: Path) -> None:
    code, [printed] = train("-m", f"paths.outputs={tmp_path / 'x'}", *arguments.split())
    assert code == 2
    assert printed.startswith(line)
    assert list(tmp_path.iterdir()) == []


def test_a_reference_that_cannot_be_resolved_is_blamed(train: CommandLine) -> None:
    code, [line] = train("seed=1", "optimizer.lr=${optimizer.rl}", "--cfg", "job", "--resolve")
    assert code == 2
    assert line.startswith("optimizer.lr: '${optimizer.rl}' cannot be resolved")


def refuse(config: DictConfig) -> None:
    raise ConfigError([Problem("a", f"is {config.seed}", "b"), Problem("c", "d", "e", "f=g")])


def refuse_one(config: DictConfig) -> None:
    if config.seed == 1:
        refuse(config)


def fail(config: DictConfig) -> None:
    raise RunFailed("the disk is full", exit_code=3)


def bug(config: DictConfig) -> None:
    raise KeyError("a bug")


def test_problems_of_the_configuration_are_one_line_each(train: CommandLine, tmp_path: Path) -> None:
    assert train(run=refuse) == (2, ["a: is 0; b", "c: d; e; try: f=g"])
    assert list(tmp_path.iterdir()) == []


def test_a_failure_that_one_line_explains(train: CommandLine) -> None:
    assert train(run=fail) == (3, ["the disk is full"])


def test_a_bug_keeps_its_traceback(train: CommandLine) -> None:
    with pytest.raises(KeyError, match="a bug"):
        train(run=bug)


def test_the_other_jobs_of_a_sweep_run_after_one_is_refused(train: CommandLine) -> None:
    seeds: list[int] = []

    def run(config: DictConfig) -> None:
        seeds.append(config.seed)
        refuse_one(config)

    code, lines = train("-m", "cluster=inline", "seed=0,1,2", run=run)
    assert seeds == [0, 1, 2]
    assert code == 2
    assert lines == ["job 1 failed: cluster=inline seed=1", "a: is 1; b", "c: d; e; try: f=g"]


def test_a_sweep_without_a_valid_job_leaves_nothing_behind(train: CommandLine, tmp_path: Path) -> None:
    code, lines = train("-m", "cluster=inline", "seed=0,1", run=refuse)
    assert (code, len(lines)) == (2, 6)
    assert list(tmp_path.iterdir()) == []


def test_a_bug_in_a_job_is_printed_at_once_and_fails_the_sweep(train: CommandLine) -> None:
    code, lines = train("-m", "cluster=inline", "seed=0,1", run=bug)
    assert code == 1
    assert [line for line in lines if "failed" in line] == [
        "job 0 failed: cluster=inline seed=0",
        "job 1 failed: cluster=inline seed=1",
    ]
    assert lines.count("KeyError: 'a bug'") == 2


def test_system_exit_passes_through(train: CommandLine) -> None:
    def exit_143(config: DictConfig) -> None:
        raise SystemExit(143)

    assert train(run=exit_143) == (143, [])


def test_a_job_in_another_process_returns_its_failure() -> None:
    import pickle

    job = pickle.loads(pickle.dumps(Job(refuse)))
    assert job.in_another_process
    error = pickle.loads(pickle.dumps(ConfigError([Problem("a", "b", "c")])))
    assert (error.problems, str(error)) == ([Problem("a", "b", "c")], "a: b; c")


def python(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=directory, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--cfg", "job"],
        ["--info", "defaults"],
        ["--shell-completion", "query=bash"],
        ["-m", "seed=0,x"],
        ["trainer.kep=1"],
    ],
)
def test_commands_that_need_no_torch_do_not_import_it(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "os.environ |= {'COMP_LINE': 'python train.py mod', 'COMP_POINT': '19'}\n"
        f"sys.argv = ['train.py', *{arguments!r}]\n"
        "from altprop.commands.entry import entry_point\n"
        "try:\n    entry_point('train', print)\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'pydantic', 'optuna'} & sys.modules.keys()"
    )
    done = python("-c", code, directory=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_script_runs_from_any_directory(tmp_path: Path) -> None:
    script = str(ROOT / "train.py")
    valid = python(script, "task=validate", "paths.outputs=out", directory=tmp_path)
    assert valid.returncode == 0, valid.stderr
    assert valid.stdout.startswith(f"valid: scratch, the run would be in {tmp_path / 'out' / 'scratch'}/")
    wrong = python(script, "model.hidden=x", "+model.num_classes=3", "trainer.duration=3", directory=tmp_path)
    assert wrong.returncode == 2
    assert [line.partition(":")[0] for line in wrong.stderr.splitlines()] == [
        "trainer.duration",
        "model.num_classes",
        "model.hidden",
    ]
    assert wrong.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("mine.yaml", b"name: mine\n", "its first line does not say where its keys belong; a first line: # @package _global_"),
        ("mine.yaml", b"\xef\xbb\xbf# @package _global_\nname: mine\n", "it starts with a byte-order mark"),
        ("mine.yml", b"# @package _global_\nname: mine\n", "ends in .yml; configuration files end in .yaml; try: mv "),
    ],
    ids=["package", "mark", "ending"],
)
def test_mistakes_of_own_experiment_files_name_the_file(
    file: str, content: bytes, message: str, train: CommandLine, tmp_path: Path
) -> None:
    path = tmp_path / "own" / "experiment" / file
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    for arguments in (("--config-dir", "own"), (f"hydra.searchpath=[file://{tmp_path / 'own'}]",)):
        code, [line] = train(*arguments, "experiment=mine")
        assert code == 2
        assert str(path) in line
        assert message in line


def test_of_many_choices_the_nearest_few_are_named(train: CommandLine) -> None:
    _, [line] = train("experiment=mnist_mlp")
    assert "baseline/mnist_mlp" in line
    assert "eqprop/mnist_mlp" in line
    assert len(line) < 250
    _, [line] = train("optimizer=adagrad")
    assert "optimizer=other takes any class" in line


def test_a_configuration_folder_that_is_not_there_is_one_line(train: CommandLine) -> None:
    assert train("--config-dir", "/nowhere", "seed=1") == (
        2,
        ["--config-dir: /nowhere is not a folder; a folder with configuration files"],
    )
    code, [line] = train("hydra.searchpath=[file:///nowhere]", "seed=1")
    assert code == 2
    assert line.startswith("hydra.searchpath: /nowhere is not a folder")
    code, [line] = train("hydra.searchpath=[pkg://nowhere.conf]", "seed=1")
    assert code == 2
    assert line.startswith("hydra.searchpath: nowhere/conf is not a folder")


def test_a_configuration_folder_without_an_init_file_is_read_without_a_warning(
    train: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    (tmp_path / "foundhere" / "conf" / "model").mkdir(parents=True)
    (tmp_path / "foundhere" / "__init__.py").touch()
    (tmp_path / "foundhere" / "conf" / "model" / "tiny.yaml").write_text("_target_: altprop.models.MLPP\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert train("hydra.searchpath=[pkg://foundhere.conf]", "model=tiny") == (0, [])
    assert [str(one.message) for one in recwarn if "is not available" in str(one.message)] == []
    assert train("hydra.searchpath=[pkg://foundhere.conf]", "model=tyni")[0] == 2


def test_a_mistake_in_an_own_file_names_that_file(train: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "own" / "experiment" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("# @package _global_\ndefaults:\n  - override /modell: mlp\nname: mine\n")
    code, [line] = train("--config-dir", "own", "experiment=mine")
    assert code == 2
    assert line.startswith(f"{path}: Could not override 'modell'")
