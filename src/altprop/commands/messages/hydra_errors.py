"""Turn the exceptions of Hydra and OmegaConf into one-line problems, for every mistake of a command line at once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence

from hydra._internal.utils import get_args
from hydra.core.override_parser.types import Override
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError  # type: ignore[import-untyped]

from altprop.commands.messages.command_line import CommandLine
from altprop.commands.messages.files import choices_in_words, ending_problem, package_problem, shown_file
from altprop.commands.messages.hints import (
    accepts,
    choices_of,
    choices_with,
    compose_leniently,
    groups_of,
    inventory,
    is_null,
    is_optional,
    names_of,
    nearest_key,
    renamed_argument,
)
from altprop.commands.messages.quoting import GRAMMAR, in_shell, unreadable
from altprop.config.checks.unused import LENGTHS
from altprop.config.compose import all_choices, config_loader
from altprop.config.plain import to_plain
from altprop.config.typed import as_typed
from altprop.problems import ConfigError, Problem, nearest
from altprop.program import command
from altprop.sweeping import grid
from altprop.yaml_files import MAX_DEPTH

_TYPES = {
    "Integer": "a whole number",
    "int": "a whole number",
    "Float": "a number",
    "bool": "true or false",
    "ListConfig": "a list",
}

Check = Callable[[DictConfig], list[Problem]]
"""Finds the problems of a composed configuration."""


def problems_of(error: Exception, config_name: str, arguments: Sequence[str], check: Check | None = None) -> list[Problem]:
    """Every mistake of the command line ``arguments``; ``error`` is the first that Hydra raised.

    Each wrong override is removed and the rest composed again, with every job of a sweep, until that succeeds. Then ``check``
    checks the result, unless the choice of a group was wrong: the keys of that group are unknown in this case.
    """
    parsed = get_args(arguments)
    extra = None if parsed.config_dir is None else os.path.abspath(parsed.config_dir)
    with config_loader(extra) as composer:
        line = CommandLine(parsed.config_name or config_name, list(parsed.overrides), parsed.multirun, composer)
        problems: list[Problem] = []
        try:
            failure = line.failure()
            if failure is None:  # composing works, so the mistake is in a value that refers to others
                return to_plain(_composed(line))[1] or [Problem("command line", _whole_message(error), GRAMMAR)]
            while failure is not None:
                current, failed = failure
                culprit = _culprit(current, failed)
                rest = failed if culprit is None else failed.without(culprit)
                problems.append(_problem(current, culprit, rest))
                typed = failed.typed.get(culprit, culprit) if culprit is not None else None
                if typed not in line.overrides:
                    break
                line = line.without(str(typed))
                failure = line.failure()
        except ConfigError as refused:  # lists of values that make no sweep
            return list(dict.fromkeys([*problems, *refused.problems]))
        if check is not None and failure is None and not any(problem.key in groups_of(line) for problem in problems):
            problems += check(_composed(line))
    return list(dict.fromkeys(problems))


def _composed(line: CommandLine) -> DictConfig:
    config = line.compose()
    with open_dict(config):
        del config["hydra"]
    return config


def _culprit(error: Exception, line: CommandLine) -> str | None:
    """The override that caused ``error``, or None if it does not come from the command line."""
    if isinstance(error, OverrideParseException):
        return error.override if error.override in line.overrides else None
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group = error.missing_cfg_file.rpartition("/")[0]
        return line.find(group) or line.find(group.partition("/")[0])
    if (wrong := line.wrong_value()) is not None:
        return wrong
    if "In '" in str(error)[:4] and not isinstance(error, MissingConfigException):
        return None  # a file, not the command line
    kind, text = type(error), str(error)
    for candidate in line.overrides:
        other = line.without(candidate).error()
        if other is None or (type(other), str(other)) != (kind, text):
            return candidate
    return None


def _problem(error: Exception, culprit: str | None, rest: CommandLine) -> Problem:
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override, rest)
    if isinstance(error, MissingConfigException):
        return _missing_choice(error, culprit, rest)
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark
        where = f"{mark.name}, line {mark.line + 1}" if mark is not None else "a file"
        return Problem("configuration file", f"{where}: {error.problem}", "valid YAML")
    if culprit is None and "In '" in str(error)[:4]:
        return _in_a_file(error, rest)
    if culprit is None:
        if isinstance(error, TypeError):  # not Hydra's complaint about an override, but a bug
            raise error
        return Problem("command line", _whole_message(error), f"see {command('train')} --help and --hydra-help")
    override = rest.parsed(culprit)
    if override is None:
        return _unreadable(culprit, rest)
    return _bad_override(error, override, rest)


def _unreadable(text: str, rest: CommandLine) -> Problem:
    if re.fullmatch(r"[\w./]+", text):
        current = OmegaConf.select(config, text) if (config := compose_leniently(rest)) is not None else None
        example = current if isinstance(current, (str, int, float)) else "…"
        return Problem(text, "has no value", GRAMMAR, f"{text}={example}")
    return unreadable(text)


def _missing_choice(error: MissingConfigException, culprit: str | None, rest: CommandLine) -> Problem:
    """The problem of a choice that a group, or a folder of a group, does not have."""
    path = error.missing_cfg_file or "?"
    group, _, name = path.rpartition("/")
    options = list(error.options or [])
    if not group:
        return Problem("command line", f"there is no configuration {name!r}", "the name of a file in conf/")
    if not options:  # experiment=<paper>/<row>: the paper is unknown
        folder, _, rest_of_group = group.partition("/")
        options = all_choices(rest.composer.loader, folder)
        name, group = (f"{rest_of_group}/{name}" if rest_of_group else name), folder
    if (problem := ending_problem(rest, group, name)) is not None:
        return problem
    listed = [option for option in options if option.partition("/")[0] == name.partition("/")[0]] if "/" in name else options
    listed = listed or sorted({option.partition("/")[0] + "/…" * ("/" in option) for option in options})
    allowed = choices_in_words(name, listed) if listed else "the group has no choices"
    near = nearest(name, options) or next((option for option in options if option.rpartition("/")[2] == name), None)
    if near is None and "other" in options:
        allowed += f"; {group}=other takes any class"
    description = f"there is no choice {name!r}"
    if culprit is None and (source := re.match(r"In '([^']*)'", str(error))):
        description += f" (requested in conf/{source[1]}.yaml)"
    return Problem(group, description, allowed, f"{group}={near}" if near and culprit is not None else near or "")


def _in_a_file(error: Exception, rest: CommandLine) -> Problem:
    """The problem of a mistake in a configuration file."""
    match = re.match(r"In '([^']*)': (?:\w+ raised while composing config:)?\s*(.*)", str(error), flags=re.DOTALL)
    if match is not None and (problem := package_problem(rest, match[1])) is not None:
        return problem
    where, text = (shown_file(rest, match[1]), match[2]) if match else ("configuration", _whole_message(error))
    key = re.search(r"full_key: (\S+)", text)
    description = " ".join(text.split("full_key:")[0].split())
    return Problem(f"{where}: {key[1]}" if key else where, description, "see conf/train.yaml for the keys and groups")


def _bad_override(error: Exception, override: Override, rest: CommandLine) -> Problem:
    key, value = override.key_or_group, _value(override)
    message = str(error)
    if isinstance(error, RecursionError):
        return Problem(key, "is nested too deeply", f"at most {MAX_DEPTH} levels")
    config = compose_leniently(rest)
    if isinstance(error, TypeError) and choices_of(rest, key):
        return Problem(key, f"{value} is not a choice", f"its choices: {', '.join(choices_of(rest, key))}")
    if message.startswith("Ambiguous value"):
        if key in grid.WHOLE:
            return Problem(key, f"{value} is several values", "it takes one", f"{key}={value.partition(',')[0]}")
        allowed = f"a list is written {key}=[{value}], text with a comma is quoted, a sweep needs -m"
        return Problem(key, f"{value} is several values", allowed, f"-m {in_shell(f'{key}={value}')}")
    if "does not support sweep type" in message:
        return Problem(
            key, f"{value} is a range", "a sweep takes lists of values, and a search takes ranges", "hydra/sweeper=optuna"
        )
    if message.startswith("Multiple values for") and override.is_add():
        return Problem(key, "has a choice already", "+ adds a group that has none", f"{key}={value}")
    if message.startswith("Could not append"):
        if (typed := rest.typed.get(str(override.input_line))) is not None:  # in some jobs of a sweep
            return Problem(key, "already exists", "+ adds a new key, ++ adds or sets it", f"+{typed}")
        return Problem(key, "already exists", "+ adds a new key", f"{key}={value}")
    if override.is_delete():
        near = nearest_key(config, rest, key)
        return Problem(key, "cannot be removed: there is no such key", inventory(config, key), f"~{near}" if near else "")
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and "Could not override" not in message:
        expected = re.search(r"(?:could not be converted to|is not a(?: valid| subclass of)?) (\w+)", str(cause))
        kind = expected[1] if expected else ""
        allowed = (
            f"it must be {_TYPES.get(kind, kind)}" if kind else " ".join(str(cause.msg or cause).split("full_key:")[0].split())
        )
        if kind and config is not None and is_optional(config, key):
            allowed += " or null"
        wrong = getattr(cause, "value", value)
        is_none = str(wrong).lower() in ("none", "nil", "")
        return Problem(key, f"{wrong!r} does not fit", allowed, f"{key}=null" if is_none and "null" in allowed else "")
    if config is not None and is_null(config, key.rpartition(".")[0]):
        parent, _, name = key.rpartition(".")
        return Problem(key, f"{parent} is null", "set it as a whole", f"{parent}={{{name}:{value}}}")
    if message.startswith(("Could not override", "Config group override")):
        return _unknown_key(config, rest, override)
    return Problem(key, _whole_message(error), GRAMMAR)


def _unknown_key(config: DictConfig | None, rest: CommandLine, override: Override) -> Problem:
    key, value = override.key_or_group, _value(override)
    mapping = override.value()
    if isinstance(mapping, dict) and (unknown := [name for name in mapping if str(name) not in names_of(config, key)]):
        near = nearest(str(unknown[0]), names_of(config, key))
        fix = f"{key}.{near}={as_typed(mapping[unknown[0]])}" if near else ""
        return Problem(f"{key}.{unknown[0]}", "there is no such key", inventory(config, f"{key}.{unknown[0]}"), fix)
    if choices_of(rest, key):
        if override.package is not None:
            return Problem(
                f"{key}@{override.package}", "the group is not used in this package", f"leave out the package: {key}=<choice>"
            )
        return Problem(key, f"{value} is not a choice", f"its choices: {', '.join(choices_of(rest, key))}")
    if nearest(key.rpartition(".")[2], [*LENGTHS, *names_of(config, key.rpartition(".")[0])]) in LENGTHS:
        fix = f"trainer.duration={value}{'ep' if value.isdigit() else ''}"
        return Problem(key, "there is no such key", "the length of a run has a unit: 10ep epochs or 500st steps", fix)
    if (renamed := renamed_argument(config, key, value)) is not None:
        return renamed
    if others := choices_with(rest, key):
        group = key.rpartition(".")[0].replace(".", "/")
        return Problem(key, "there is no such key", f"it is a key of {group}={', '.join(others)}; {inventory(config, key)}")
    near = nearest_key(config, rest, key)
    if near is None and "." in key and accepts(config, key):
        return Problem(key, "is not in the configuration", "+ adds another argument of the class", f"+{key}={value}")
    fix = f"{near}={value}" if near else ""
    if "/" in key:
        return Problem(key, "there is no such group", f"groups: {', '.join(groups_of(rest))}", fix)
    return Problem(key, "there is no such key", inventory(config, key), fix)


def _value(override: Override) -> str:
    """The value as the user typed it."""
    return (override.input_line or "").partition("=")[2]


def _whole_message(error: Exception) -> str:
    """The message of ``error``, or of its cause if it has none, on one line."""
    text = str(error) or str(error.__cause__ or type(error).__name__)
    return " ".join(text.split())
