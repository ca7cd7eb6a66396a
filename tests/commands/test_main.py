"""The command ``altprop``: its commands, version and completion, and flags anywhere in a command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from altprop import __version__, program
from altprop.commands.main import COMMANDS, main

Output = pytest.CaptureFixture[str]


def altprop(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["altprop", *arguments])
    monkeypatch.setattr(sys, "path", list(sys.path))
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_the_version_names_commit_and_torch(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    import torch

    assert altprop(monkeypatch, "--version") == 0
    name, commit, torch_version = capsys.readouterr().out.strip().split(", ")
    assert name == f"altprop {__version__}"
    assert commit.startswith("commit ")
    assert torch.__version__.startswith(torch_version.removeprefix("torch ").partition("+")[0])


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_help_lists_every_command(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    assert altprop(monkeypatch, *arguments) == 0
    page = capsys.readouterr().out
    assert all(f"  altprop {command} " in page for command in COMMANDS)
    assert max(map(len, page.splitlines())) <= 120


def test_the_pages_of_the_commands_name_the_command_that_was_typed(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    for command in COMMANDS:
        assert altprop(monkeypatch, command, "--help") == 0
        page = capsys.readouterr().out
        assert f"  altprop {command}" in page
        assert ".py" not in page
        assert max(map(len, page.splitlines())) <= 125


@pytest.mark.parametrize(
    ("word", "fix"),
    [("trian", "altprop train"), ("model=mlp", "altprop train model=mlp"), ("-m", "altprop train -m"), ("x", "altprop --help")],
)
def test_an_unknown_command_is_one_line(word: str, fix: str, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    assert altprop(monkeypatch, word) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith(f"try: {fix}")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("altprop tr", " ".join(COMMANDS)),
        ("altprop train model=convnet", "model=convnet model=convnet4 model=convnet8"),
        ("altprop train experiment=eq", "experiment=eqprop/"),
        ("altprop evaluate dataset=mn", "dataset=mnist dataset=mnist_sample"),
    ],
)
def test_completion(typed: str, offered: str, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setenv("COMP_LINE", typed)
    assert altprop(monkeypatch, "-sc", "query=bash") == 0
    assert capsys.readouterr().out.strip() == offered


def test_completion_is_installed_for_the_command(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.delenv("COMP_LINE", raising=False)
    assert altprop(monkeypatch, "-sc", "install=bash") == 0
    assert capsys.readouterr().out.strip().endswith("-F hydra_bash_completion altprop")


def test_help_is_printed_without_torch() -> None:
    code = "import sys; sys.argv = ['altprop', 'train', '--help']\nfrom altprop.commands.main import main\n"
    code += "try:\n    main()\nexcept SystemExit:\n    pass\nassert not {'torch', 'pydantic', 'numpy'} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_messages_name_the_command_as_it_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/train.py"])
    assert program.command("train") == "python train.py"
    assert Path(program.arguments("train")[1]).name == "train.py"
    monkeypatch.setattr(sys, "argv", ["altprop train"])
    assert program.command("status") == "altprop status"
    assert program.arguments("status")[1:] == ["-m", "altprop", "status"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/train.py"])
    monkeypatch.setattr(program, "CHECKOUT", None)
    assert program.command("train") == "altprop train"
