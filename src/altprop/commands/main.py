"""The command ``altprop`` and the scripts of a checkout: ``altprop train`` and ``python train.py`` call the same functions."""

from __future__ import annotations

from altprop.training.signals import stopping_at_once

with stopping_at_once():  # the imports take a third of a second
    import importlib
    import os
    import sys
    from functools import partial
    from importlib import metadata

    from omegaconf import DictConfig, OmegaConf

    import altprop
    from altprop.code_state import code_state
    from altprop.commands.entry import entry_point
    from altprop.commands.messages.help import ALTPROP
    from altprop.commands.train import check_task
    from altprop.problems import Problem, nearest
    from altprop.program import FORK_SERVER, PACKAGE

COMMANDS = {"train": "run_task", "evaluate": "evaluate", "report": "report", "status": "status", "data": "run"}
"""Command -> function of ``altprop.commands.<command>`` that is called with the composed configuration."""
COMPLETION = ("-sc", "--shell-completion")


def main(command: str | None = None) -> None:
    """Run ``command`` with the arguments of the process; without one, run the command that the first argument names.

    Exits like :func:`altprop.commands.entry.entry_point`.
    """
    if command is not None:
        _run(command)
        return
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:  # a user's own modules may be in the current folder, as with ``python -m``
        sys.path.append(here)
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        sys.argv = [f"altprop {name}", *arguments]
        _run(name)
    elif name in COMPLETION or name.startswith(f"{COMPLETION[1]}="):
        _complete()
    elif name in ("-h", "--help"):
        print(ALTPROP.rstrip())
    elif name == "--version":
        print(version())
    else:
        fix = f"altprop train {name}" if "=" in name or name.startswith("-") else f"altprop {nearest(name, COMMANDS) or '--help'}"
        print(Problem("altprop", f"there is no command {name!r}", f"commands: {', '.join(COMMANDS)}", fix), file=sys.stderr)
        sys.exit(2)


def version() -> str:
    """The versions of altprop and torch and the commit of the code (``+``: with uncommitted changes)."""
    facts, _ = code_state(PACKAGE)
    commit = f"{facts['commit'][:10]}{'+' if facts['dirty'] else ''}" if facts and facts["commit"] else "unknown"
    return f"altprop {altprop.__version__}, commit {commit}, torch {metadata.version('torch')}"


def _run(command: str) -> None:
    run, check = partial(_call, command), check_task if command == "train" else None
    if sys.argv[1:2] != [FORK_SERVER]:
        entry_point(command, run, check)
        return
    from altprop.sweeping.fork_server import ending, serve

    order = serve(int(sys.argv[2]))  # returns in the processes that it forks, as if they had been started for their run
    sys.argv[1:] = order.arguments
    config = None if order.config is None else OmegaConf.create(dict(order.config))
    with ending():
        entry_point(command, run, check, config)


def _call(command: str, config: DictConfig) -> None:
    """Import the command only when it runs, so that ``--help`` and the like respond at once."""
    getattr(importlib.import_module(f"altprop.commands.{command}"), COMMANDS[command])(config)


def _complete() -> None:
    """Tab completion, which Hydra does for one command: the first word is that command."""
    words = os.environ.get("COMP_LINE", "").split()
    typed_next = os.environ.get("COMP_LINE", "").endswith(" ")
    if len(words) > 2 or (len(words) == 2 and typed_next):
        command = words[1] if words[1] in COMMANDS else "train"
        os.environ["COMP_LINE"] = os.environ["COMP_LINE"].replace(f" {words[1]}", "", 1)
        _run(command)
    elif words:
        print(" ".join(COMMANDS))
    else:  # install, uninstall
        sys.argv[0] = "altprop"
        _run("train")
