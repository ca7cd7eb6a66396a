"""Tab completion: what may follow on a command line. Hydra installs it in a shell; the answers are altprop's.

Imports no torch: the values of an argument are read from source files (:mod:`altprop.config.enumerated`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.utils import get_args, get_args_parser
from hydra.core.object_type import ObjectType
from hydra.plugins.completion_plugin import CompletionPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from altprop.commands.messages.arguments import flags_first
from altprop.commands.messages.command_line import CommandLine, CompositionError
from altprop.config.command_settings import COMMAND_SETTINGS
from altprop.config.compose import config_loader
from altprop.config.enumerated import values_of
from altprop.config.schema import RootConfig
from altprop.problems import ConfigError
from altprop.reporting.runs import run_directories
from altprop.training.settings import TrainerSettings

PAPERS = ("experiment", "sweep")
"""Groups with a folder for each paper, which are completed folder by folder."""
TYPED: Mapping[str, Mapping[str, type]] = {
    "train": {"trainer": TrainerSettings, "": RootConfig},
    **{command: {"": settings} for command, settings in COMMAND_SETTINGS.items()},
}
"""Command -> its nodes without a ``_target_`` -> the class that declares their keys."""
WORDS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "train": {"trainer.device": ("auto", "cpu", "cuda"), "trainer.select_on": ("auto", "validation", "test", "last")},
    "evaluate": {"device": ("auto", "cpu", "cuda")},
    "report": {"formats": ("all", "markdown", "csv", "latex", "html")},
    "status": {
        "action": ("show", "cancel", "logs", "retry", "watch", "clean"),
        "only": ("done", "running", "waiting", "stuck", "preempted", "interrupted", "failed", "unknown"),
    },
    "data": {"action": ("list", "fetch", "sheet", "check", "unpack_imagenet")},
}
"""Command -> its keys that take one of a few words, which no type says."""
GROUPS: Mapping[str, Sequence[str]] = {"evaluate": ("dataset", "metrics"), "report": (), "status": (), "data": ("dataset",)}
"""Command other than ``train`` -> its groups."""
SEPARATORS = {"bash": " ", "zsh": " ", "fish": "\n"}
MIN_KEY = 2
"""Characters of a run key from which runs are looked up by key."""
MAX_RUNS = 200


def answer(command: str, arguments: Sequence[str]) -> None:
    """Print what may follow on the command line in ``COMP_LINE``, in the form that the shell reads."""
    shell = next(word for word in arguments if word.startswith("query=")).partition("=")[2]
    line = os.environ.get("COMP_LINE", "")
    try:
        found = completions(command, line[: int(os.environ.get("COMP_POINT") or len(line))])
    except (ConfigError, *CompositionError):  # the line has a mistake, which running it will report
        found = []
    print(SEPARATORS.get(shell, "\n").join(found))


def completions(command: str, line: str) -> list[str]:
    """The words that the last word of ``line`` may become, sorted. A line ends in a space where a new word begins."""
    words = line.split()
    if not line or line[-1].isspace():
        words.append("")
    *before, word = _without_program(words)
    if word.startswith("-"):
        return sorted(flag for flag in get_args_parser()._option_string_actions if flag.startswith(word))
    try:
        arguments = get_args(flags_first(before))
    except (ConfigError, SystemExit):
        return []
    folder = None if arguments.config_dir is None else os.path.abspath(arguments.config_dir)
    with config_loader(folder) as composer:
        typed = CommandLine(command, list(arguments.overrides), bool(arguments.multirun), composer)
        query = Query(command, typed, word)
        return sorted(set(query.values() if "=" in word else query.keys()))


def _without_program(words: Sequence[str]) -> list[str]:
    """``words`` without ``python train.py`` or ``altprop`` at the start."""
    scripts = [index for index, word in enumerate(words[:-1]) if word.endswith(".py") and "=" not in word]
    return list(words[scripts[0] + 1 :] if scripts else words[1:])


@dataclass
class Query:
    """One question: what can ``word`` become, behind the overrides of ``typed``?"""

    command: str
    typed: CommandLine
    word: str

    def keys(self) -> Iterator[str]:
        """Groups and keys that begin like the word, and their parents."""
        prefix = re.match(r"[+~]*", self.word)
        assert prefix is not None
        name = self.word[prefix.end() :]
        for group in self._groups(name):
            if self.command == "train" or group in GROUPS[self.command]:
                yield f"{prefix[0]}{group}="
        config = self._config
        if config is None:
            return
        hidden = tuple(start for start in ("hydra", "_") if not name.rpartition(".")[2].startswith(start[0]))
        for match in CompletionPlugin._get_matches(config, name):
            if not match.rstrip(".=").rpartition(".")[2].startswith(hidden):
                yield f"{prefix[0]}{match}"

    def values(self) -> Iterator[str]:
        """Values that begin like what follows the ``=``; in a sweep, like the last of a list."""
        start, _, value = self.word.partition("=")
        key = start.lstrip("+~")
        listed, comma, last = value.rpartition(",")
        before = f"{start}={listed}{comma}"
        if key == "run" and self.command in ("train", "evaluate"):
            yield from (f"{start}={run}" for run in self._runs(value))
        elif key in PAPERS:
            yield from (f"{before}{choice}" for choice in _folder_by_folder(last, self._choices(key)))
        elif options := self._choices(key) or self._words(key):
            yield from (f"{before}{option}" for option in options if option.startswith(last))
        elif not value and (config := self._config) is not None:
            yield from CompletionPlugin._get_matches(config, f"{key}=")

    def _choices(self, group: str) -> list[str]:
        """The choices of ``group``, in subfolders as ``<folder>/<name>``."""
        choices = self._listed(group, ObjectType.CONFIG)
        for folder in self._listed(group, ObjectType.GROUP) if group in PAPERS else ():
            if not folder.startswith("_") and folder != "wandb":  # shared parts of experiments; files for agents of W&B
                choices += [f"{folder}/{name}" for name in self._listed(f"{group}/{folder}", ObjectType.CONFIG)]
        return choices

    def _groups(self, typed: str, parent: str = "") -> Iterator[str]:
        """Every group that begins like ``typed``; ``experiment`` and ``sweep`` without their folders."""
        for name in self._listed(parent, ObjectType.GROUP):
            group = f"{parent}/{name}" if parent else name
            if group.startswith(typed) and group != "hydra":
                yield group
            if group not in (*PAPERS, "hydra") and (group.startswith(typed) or typed.startswith(f"{group}/")):
                yield from self._groups(typed, group)

    def _listed(self, group: str, kind: ObjectType) -> list[str]:
        """What the folder ``group`` contains in any configuration folder, those that the command line adds included."""
        return list(self._repository.get_group_options(group, kind))

    @cached_property
    def _repository(self) -> CachingConfigRepository:
        line = self.typed
        searched = [text for text in line.overrides if text.startswith("hydra.searchpath=")] or line.composer.extra
        assert isinstance(line.composer.loader, ConfigLoaderImpl)
        return line.composer.loader._parse_overrides_and_create_caching_repo(line.config_name, searched)[1]

    def _words(self, key: str) -> Sequence[str]:
        """The words that ``key`` takes; empty if it takes anything else."""
        if words := WORDS.get(self.command, {}).get(key):
            return words
        parent, _, name = key.rpartition(".")
        config = self._config
        node = _select(config, parent)
        target = node.get("_target_") if isinstance(node, DictConfig) and not OmegaConf.is_missing(node, "_target_") else None
        if target is None and (declared := TYPED[self.command].get(parent)) is not None:
            target = f"{declared.__module__}.{declared.__qualname__}"
        words = values_of(target, name) if isinstance(target, str) else []
        return words or (("true", "false") if isinstance(_select(config, key), bool) else ())

    @cached_property
    def _config(self) -> DictConfig | None:
        try:
            return self.typed.compose()
        except CompositionError:
            return None

    def _runs(self, typed: str) -> Iterator[str]:
        """Runs by their path, by ``<name>/<key>`` below ``paths.outputs``, or by their key."""
        folder, slash, last = typed.rpartition("/")
        config = self._config
        outputs = Path(str(_select(config, "paths.outputs") or "outputs"))
        for parent in dict.fromkeys((Path(folder + slash).expanduser(), outputs / folder)):
            if not typed and parent != outputs:
                continue
            yield from (f"{folder}{slash}{name}" for name in _subfolders(parent) if name.startswith(last))
        if not slash:
            if outputs.is_dir() and (here := os.path.relpath(outputs)).startswith(typed) and "/" not in here:
                yield f"{here}/"
            if len(typed) >= MIN_KEY:
                yield from (run.name for run in islice(run_directories(outputs), MAX_RUNS) if run.name.startswith(typed))


def _subfolders(parent: Path) -> Iterator[str]:
    """The runs and folders of runs in ``parent``; folders end in a slash."""
    try:
        entries = sorted(entry.name for entry in os.scandir(parent) if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return
    for name in entries:
        if (parent / name / "config.yaml").is_file():
            yield name
        elif next(run_directories(parent / name), None) is not None:
            yield f"{name}/"


def _folder_by_folder(typed: str, choices: Iterable[str]) -> Iterator[str]:
    """The choices that begin like ``typed``, up to their next slash."""
    for choice in choices:
        if choice.startswith(typed):
            folder, slash, _ = choice[len(typed) :].partition("/")
            yield f"{typed}{folder}{slash}"


def _select(config: DictConfig | None, key: str) -> Any:
    try:
        return config if not key or config is None else OmegaConf.select(config, key)
    except OmegaConfBaseException:
        return None
