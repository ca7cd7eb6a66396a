"""Command lines as users and other programs write them, in the form that Hydra's parser accepts."""

from __future__ import annotations

import re
from argparse import Action
from collections.abc import Sequence

from hydra._internal.utils import get_args_parser

from altprop.problems import ConfigError, Problem, nearest

_VALUE = re.compile(r"-?(\d|\.\d)")


def flags_first(arguments: Sequence[str]) -> list[str]:
    """``arguments`` with the flags before the overrides, because argparse takes overrides in one place only.

    ``--optimizer.lr=0.1`` is the override ``optimizer.lr=0.1``, as an agent of W&B writes it. Raises ConfigError for other flags
    that there are not.
    """
    options = get_args_parser()._option_string_actions
    flags: list[str] = []
    overrides: list[str] = []
    problems: list[Problem] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        name, separator, _ = word.partition("=")
        if not word.startswith("-"):
            overrides.append(word)
        elif name in options or _is_short(word, options):
            flags += (flag := _with_value(word, words, options.get(name)))
            if name in options and (problem := _wrong_value(flag, options[name])) is not None:
                problems.append(problem)
        elif word.startswith("--") and separator and re.fullmatch(r"--[+~]{0,2}[\w./@]+", name):
            overrides.append(word[2:])
        else:
            problems.append(_unknown(word, words, options))
    if problems:
        raise ConfigError(problems)
    return [*flags, *overrides]


def _with_value(word: str, rest: list[str], option: Action | None) -> list[str]:
    """The flag ``word`` with its value, which is removed from ``rest`` if it is the next word there."""
    if option is None or "=" in word:
        return [word]
    if option.nargs == "?" and not (rest and rest[0] in _choices(option)):
        return [f"{word}={option.const}"]  # or else it would take an override as its value
    return [word, rest.pop(0)] if option.nargs in (None, "?") and rest else [word]


def _wrong_value(flag: list[str], option: Action) -> Problem | None:
    name, _, value = "=".join(flag).partition("=")
    choices = _choices(option)
    if option.nargs is None and (not value or (choices and value not in choices)):
        allowed = f"it takes {' | '.join(choices) if choices else 'a value'}"
        return Problem("command line", f"{name} {value} is no choice" if value else f"{name} has no value", allowed)
    return None


def _choices(option: Action) -> list[str]:
    return [str(choice) for choice in option.choices or ()]


def _is_short(word: str, options: dict[str, Action]) -> bool:
    """Whether ``word`` is a short flag with its value, such as ``-cjob``, or several short flags in one."""
    return not word.startswith("--") and len(word) > 2 and word[:2] in options and word[:3] not in options


def _unknown(word: str, rest: Sequence[str], options: dict[str, Action]) -> Problem:
    name = word.partition("=")[0]
    long_names = [option for option in options if option.startswith("--")]
    allowed = f"flags: {', '.join(sorted(long_names))}; overrides are key=value"
    if near := nearest(name, long_names):
        fix = near
    else:
        value = rest[0] if rest and "=" not in rest[0] and (not rest[0].startswith("-") or _VALUE.match(rest[0])) else "…"
        fix = f"{name.lstrip('-').replace('-', '_')}={value}"
    return Problem("command line", f"there is no flag {name}", allowed, fix)
