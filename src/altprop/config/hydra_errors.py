"""Hydra's and OmegaConf's exceptions as one-line problems, every mistake of a command line at once."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.utils import get_args
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError  # type: ignore[import-untyped]

from altprop.config.compose import Composer, config_loader
from altprop.problems import Problem, nearest

CompositionError = (HydraException, OmegaConfBaseException, YAMLError, ValueError, AssertionError)
"""What Hydra raises while it composes: its own exceptions, and a few built-in ones."""

GRAMMAR = "overrides are key=value, +key=value (a new key), ~key (remove it) or group=choice"
_TYPES = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}
_LENGTHS = ("epochs", "max_epochs", "num_epochs", "steps", "max_steps")  # what other projects call trainer.duration


@dataclass(frozen=True)
class CommandLine:
    """What is being composed."""

    config_name: str
    overrides: list[str]
    multirun: bool
    composer: Composer

    def without(self, override: str) -> CommandLine:
        """The same without one override."""
        kept = list(self.overrides)
        kept.remove(override)
        return CommandLine(self.config_name, kept, self.multirun, self.composer)

    def compose(self) -> DictConfig:
        return self.composer.compose(self.config_name, self.overrides, multirun=self.multirun)

    def error(self) -> Exception | None:
        """What composing raises, or None."""
        try:
            self.compose()
        except CompositionError as error:
            return error
        return None

    def find(self, key: str) -> str | None:
        """The override that sets the key or group ``key``."""
        for text in self.overrides:
            override = self.parsed(text)
            if override is not None and key in (override.key_or_group, override.get_key_element().lstrip("+~")):
                return text
        return None

    def parsed(self, text: str) -> Override | None:
        """``text`` as Hydra understands it; None where it does not."""
        try:
            return OverridesParser.create(self.composer.loader).parse_override(text)
        except HydraException:
            return None


def problems_of(error: Exception, config_name: str, arguments: Sequence[str]) -> list[Problem]:
    """Every mistake of the command line ``arguments``, of which ``error`` is the first that Hydra met.

    Each mistake is taken out and the rest composed again, until nothing is left to say.
    """
    parsed = get_args(arguments)
    extra = None if parsed.config_dir is None else os.path.abspath(parsed.config_dir)
    with config_loader(extra) as composer:
        line = CommandLine(parsed.config_name or config_name, list(parsed.overrides), parsed.multirun, composer)
        problems: list[Problem] = []
        current: Exception | None = error
        while current is not None:
            culprit = _culprit(current, line)
            rest = line if culprit is None else line.without(culprit)
            problems.append(_problem(current, culprit, rest))
            if culprit is None:
                break
            line, current = rest, rest.error()
    return list(dict.fromkeys(problems))


def _culprit(error: Exception, line: CommandLine) -> str | None:
    """The override that ``error`` is about; None where it is not one of the command line."""
    if isinstance(error, OverrideParseException):
        return error.override if error.override in line.overrides else None
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group = error.missing_cfg_file.rpartition("/")[0]
        return line.find(group) or line.find(group.partition("/")[0])
    key = getattr(error.__cause__, "full_key", None) if isinstance(error.__cause__, OmegaConfBaseException) else None
    named = line.find(key) if isinstance(key, str) else None
    if named is not None:
        return named
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
        return _in_a_file(error)
    if culprit is None:
        return Problem("command line", _whole_message(error), "see python train.py --help and --hydra-help")
    override = rest.parsed(culprit)
    if override is None:
        return _unreadable(culprit, rest)
    return _bad_override(error, override, rest)


def _unreadable(text: str, rest: CommandLine) -> Problem:
    if re.fullmatch(r"[\w./]+", text):
        current = OmegaConf.select(config, text) if (config := _composed(rest)) is not None else None
        shown = current if isinstance(current, (str, int, float)) else "…"
        return Problem(text, "no value is given", GRAMMAR, f"{text}={shown}")
    return Problem("command line", f"{text!r} cannot be read", GRAMMAR)


def _missing_choice(error: MissingConfigException, culprit: str | None, rest: CommandLine) -> Problem:
    """A group has no such choice, or a folder of a group none such file."""
    path = error.missing_cfg_file or "?"
    group, _, name = path.rpartition("/")
    options = list(error.options or [])
    if not group:
        return Problem("command line", f"there is no configuration {name!r}", "the name of a file in conf/")
    if not options:  # experiment=<paper>/<row>: the paper is unknown
        folder, _, rest_of_group = group.partition("/")
        options = _all_choices(rest, folder)
        name, group = (f"{rest_of_group}/{name}" if rest_of_group else name), folder
    allowed = f"its choices: {', '.join(options)}" if options else "the group has no choices yet"
    near = nearest(name, options)
    given = f"there is no choice {name!r}"
    if culprit is None and (source := re.match(r"In '([^']*)'", str(error))):
        given += f" (asked for in conf/{source[1]}.yaml)"
    return Problem(group, given, allowed, f"{group}={near}" if near and culprit is not None else near or "")


def _all_choices(line: CommandLine, group: str) -> list[str]:
    loader = line.composer.loader
    choices = list(loader.get_group_options(group, ObjectType.CONFIG))
    for folder in loader.list_groups(group):
        choices += [f"{folder}/{name}" for name in _all_choices(line, f"{group}/{folder}")]
    return choices


def _in_a_file(error: Exception) -> Problem:
    """A mistake in a configuration file."""
    match = re.match(r"In '([^']*)': (?:\w+ raised while composing config:)?\s*(.*)", str(error), flags=re.DOTALL)
    where, text = (f"conf/{match[1]}.yaml", match[2]) if match else ("configuration", _whole_message(error))
    key = re.search(r"full_key: (\S+)", text)
    said = " ".join(text.split("full_key:")[0].split())
    return Problem(f"{where}: {key[1]}" if key else where, said, "see conf/train.yaml for the keys and groups")


def _bad_override(error: Exception, override: Override, rest: CommandLine) -> Problem:
    key, value = override.key_or_group, _value(override)
    message = str(error)
    config = _composed(rest)
    if message.startswith("Ambiguous value"):
        return Problem(key, f"{value} is several values", f"a list is {key}=[{value}]; a sweep needs -m", f"-m {key}={value}")
    if message.startswith("Could not append"):
        return Problem(key, "exists already", "+ adds a new key", f"{key}={value}")
    if override.is_delete():
        near = _nearest_key(config, rest, key)
        return Problem(key, "cannot be removed, there is no such key", _inventory(config, key), f"~{near}" if near else "")
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and "Could not override" not in message:
        expected = re.search(r"could not be converted to (\w+)|valid (\w+)", str(cause))
        kind = next((group for group in expected.groups() if group), "") if expected else ""
        allowed = (
            f"it must be {_TYPES.get(kind, kind)}" if kind else " ".join(str(cause.msg or cause).split("full_key:")[0].split())
        )
        return Problem(key, f"{getattr(cause, 'value', value)!r} does not fit", allowed)
    if config is not None and _is_null(config, key.rpartition(".")[0]):
        parent, _, name = key.rpartition(".")
        return Problem(key, f"{parent} is null", "set it as a whole", f"{parent}={{{name}:{value}}}")
    if message.startswith(("Could not override", "Config group override")):
        return _unknown_key(config, rest, override)
    return Problem(key, _whole_message(error), GRAMMAR)


def _unknown_key(config: DictConfig | None, rest: CommandLine, override: Override) -> Problem:
    key, value = override.key_or_group, _value(override)
    if _choices_of(rest, key):
        if override.package is not None:
            return Problem(f"{key}@{override.package}", "the group has no such place", f"without a place: {key}=<choice>")
        return Problem(key, f"{value} is no choice", f"its choices: {', '.join(_choices_of(rest, key))}")
    if nearest(key.rpartition(".")[2], [*_LENGTHS, *_names(config, key.rpartition(".")[0])]) in _LENGTHS:
        mend = f"trainer.duration={value}{'ep' if value.isdigit() else ''}"
        return Problem(key, "there is no such key", "the length of a run has a unit: 10ep epochs or 500st steps", mend)
    near = _nearest_key(config, rest, key)
    if near is None and "." in key and _accepts(config, key):
        return Problem(key, "is not in the configuration", "a further argument of its class is added with +", f"+{key}={value}")
    mend = f"{near}={value}" if near else ""
    if "/" in key:
        return Problem(key, "there is no such group", f"groups: {', '.join(_groups(rest))}", mend)
    return Problem(key, "there is no such key", _inventory(config, key), mend)


def _choices_of(line: CommandLine, group: str) -> list[str]:
    return list(line.composer.loader.get_group_options(group, ObjectType.CONFIG))


def _composed(line: CommandLine) -> DictConfig | None:
    """The configuration without the mistake; without any override where the others are wrong as well."""
    for candidate in (line, CommandLine(line.config_name, [], False, line.composer)):
        try:
            return candidate.compose()
        except CompositionError:
            continue
    return None


def _inventory(config: DictConfig | None, key: str) -> str:
    """The keys beside ``key``."""
    parent = key.rpartition(".")[0]
    names = _names(config, parent)
    if not names:
        parent, names = "", _names(config, "")
    return f"{f'keys of {parent}' if parent else 'keys'}: {', '.join(names)}"


def _nearest_key(config: DictConfig | None, line: CommandLine, key: str) -> str | None:
    """The existing key that was most likely meant: a sibling, the same name elsewhere, or anything alike."""
    if config is None:
        return None
    groups = _groups(line)
    if "/" in key:
        return nearest(key, groups)
    parent, _, name = key.rpartition(".")
    if near := nearest(name, _names(config, parent)):
        return f"{parent}.{near}" if parent else near
    if not parent and (near := nearest(name, groups)):
        return near
    elsewhere = {other.rpartition(".")[2]: other for other in reversed(_dotted(config))}
    if name in elsewhere:
        return elsewhere[name]
    return None if parent else elsewhere.get(nearest(name, elsewhere) or "")


def _groups(line: CommandLine, parent: str = "") -> list[str]:
    groups = []
    for name in line.composer.loader.list_groups(parent):
        group = f"{parent}/{name}" if parent else name
        if group not in ("experiment", "sweep", "hydra"):
            groups += [group, *_groups(line, group)]
    return groups


def _names(config: DictConfig | None, key: str) -> list[str]:
    node: Any = config if not key or config is None else _select(config, key)
    if not isinstance(node, DictConfig) or not node:
        return []
    return [str(name) for name in node if not str(name).startswith("_") and (key or name != "hydra")]


def _dotted(node: Any, prefix: str = "") -> list[str]:
    """All dotted keys of a configuration but Hydra's own."""
    keys: list[str] = []
    if not OmegaConf.is_dict(node) or node._is_none() or node._is_missing():
        return keys
    for name in node:
        if name == "hydra" and not prefix:
            continue
        keys.append(f"{prefix}{name}")
        if not OmegaConf.is_missing(node, name) and not OmegaConf.is_interpolation(node, name):
            keys += _dotted(node[name], f"{prefix}{name}.")
    return keys


def _select(config: DictConfig, key: str) -> Any:
    try:
        return OmegaConf.select(config, key)
    except OmegaConfBaseException:
        return None


def _is_null(config: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    return bool(key) and name in _names(config, parent) and _select(config, key) is None


def _accepts(config: DictConfig | None, key: str) -> bool:
    """Whether the class of the node above ``key`` takes such an argument."""
    from altprop.config.targets import accepts

    parent, _, name = key.rpartition(".")
    node = _select(config, parent) if config is not None and parent else None
    target = node.get("_target_") if isinstance(node, DictConfig) and not OmegaConf.is_missing(node, "_target_") else None
    return isinstance(target, str) and accepts(target, name)


def _value(override: Override) -> str:
    """The value as it was typed."""
    return (override.input_line or "").partition("=")[2]


def _whole_message(error: Exception) -> str:
    """The message of ``error``, or of its cause where it has none, on one line."""
    text = str(error) or str(error.__cause__ or type(error).__name__)
    return " ".join(text.split())
