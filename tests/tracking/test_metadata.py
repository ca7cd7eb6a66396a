import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from altprop.tracking import metadata
from altprop.tracking.metadata import anonymous, code_state, command_line, write_metadata

CPU = torch.device("cpu")


def git(directory: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "init.defaultBranch=main"]
    result = subprocess.run(["git", "-C", directory, *identity, *arguments], check=True, capture_output=True, text=True)
    return result.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit and a remote."""
    root = tmp_path / "repository"
    (root / "package").mkdir(parents=True)
    git(root, "init", "-q")
    (root / "package" / "code.py").write_text("a = 1\n")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    git(root, "remote", "add", "origin", "https://secret.example.org/x.git")
    return root


def write(monkeypatch, directory: Path, package: Path) -> dict:
    monkeypatch.setattr(metadata.altprop, "__file__", str(package / "__init__.py"))
    directory.mkdir(exist_ok=True)
    return json.loads(write_metadata(directory, CPU).read_text())


def test_a_clean_commit(tmp_path, monkeypatch, repository):
    meta = write(monkeypatch, tmp_path / "run", repository / "package")
    commit = git(repository, "rev-parse", "HEAD").strip()
    assert meta["git"] == {"commit": commit, "branch": "main", "dirty": False, "untracked": []}
    assert not (tmp_path / "run" / "code.diff").exists()
    assert meta["versions"]["python"] == platform.python_version()
    assert meta["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert meta["threads"] == torch.get_num_threads()
    assert meta["device"] == "cpu"
    assert [(session["commit"], session["dirty"]) for session in meta["sessions"]] == [(commit, False)]


def test_the_diff_restores_the_code_that_ran(tmp_path, monkeypatch, repository):
    (repository / "package" / "code.py").write_text("a = 2\n")
    (repository / "package" / "new.py").write_text("b = 1\n")
    meta = write(monkeypatch, tmp_path / "run", repository / "package")
    assert meta["git"]["dirty"] is True
    assert meta["git"]["untracked"] == ["package/new.py"]
    git(repository, "checkout", "-q", ".")
    git(repository, "apply", str(tmp_path / "run" / "code.diff"))
    assert (repository / "package" / "code.py").read_text() == "a = 2\n"


def test_every_start_is_listed_and_an_old_diff_is_removed(tmp_path, monkeypatch, repository):
    (repository / "package" / "code.py").write_text("a = 2\n")
    write(monkeypatch, tmp_path / "run", repository / "package")
    git(repository, "commit", "-qam", "second")
    meta = write(monkeypatch, tmp_path / "run", repository / "package")
    assert [session["dirty"] for session in meta["sessions"]] == [True, False]
    assert len({session["commit"] for session in meta["sessions"]}) == 2
    assert not (tmp_path / "run" / "code.diff").exists()


def test_code_that_git_does_not_track(tmp_path, monkeypatch, repository):
    (repository / "site-packages").mkdir()
    assert code_state(repository / "site-packages") == (None, "")
    assert code_state(tmp_path) == (None, "")
    meta = write(monkeypatch, tmp_path / "run", tmp_path)
    assert meta["git"] is None
    assert meta["sessions"][0]["commit"] is None


def test_a_repository_without_a_commit(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("")
    git(tmp_path, "add", ".")
    facts, diff = code_state(tmp_path)
    assert facts is not None
    assert (facts["commit"], facts["dirty"], diff) == (None, True, "")


def test_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert write(monkeypatch, tmp_path / "run", tmp_path)["git"] is None


def test_a_truncated_file_of_an_earlier_start_is_replaced(tmp_path, monkeypatch):
    (tmp_path / "meta.json").write_text('{"sess')
    assert len(write(monkeypatch, tmp_path, tmp_path)["sessions"]) == 1


def test_nothing_identifies_user_or_machine(tmp_path, monkeypatch, repository):
    monkeypatch.setenv("HOME", "/users/lada")
    monkeypatch.setenv("LOGNAME", "lada")
    monkeypatch.setattr(platform, "node", lambda: "analytical-engine")
    arguments = ["paths.data=/users/lada/data", "paths.outputs=/scratch/lada/out", "+x=/net/analytical-engine/lada", "name=lada"]
    monkeypatch.setattr(sys, "argv", ["/users/lada/altprop/train.py", *arguments])
    meta = write(monkeypatch, tmp_path / "run", repository / "package")
    assert meta["command"] == [
        "train.py",
        "paths.data=~/data",
        "paths.outputs=/scratch/$USER/out",
        "+x=/net/$HOST/$USER",
        "name=lada",
    ]
    text = json.dumps({key: value for key, value in meta.items() if key != "command"})
    for private in ("lada", "analytical-engine", "secret.example.org", os.fspath(tmp_path)):
        assert private not in text


def test_only_whole_path_components_are_replaced(monkeypatch):
    monkeypatch.setenv("HOME", "/home/al")
    monkeypatch.setenv("LOGNAME", "al")
    assert anonymous("a=/home/alma/x,/data/al/final") == "a=/home/alma/x,/data/$USER/final"
    assert command_line(["-c", "al"]) == ["-c", "al"]
