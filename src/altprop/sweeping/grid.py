"""The jobs of a sweep: every combination of the listed values, with all other overrides as they were typed."""

from __future__ import annotations

import fnmatch
import itertools
import math
from collections.abc import Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, OverrideType, RangeSweep
from hydra.errors import HydraException
from omegaconf import OmegaConf

from altprop.config.compose import all_choices
from altprop.problems import ConfigError, Problem
from altprop.program import command

WHOLE = ("sweep", "cluster", "resources", "paths")
"""Groups that apply to a sweep as a whole. Its jobs cannot differ in them."""
MAX_RUNS = 10_000
"""Runs of one grid, and values of one range."""
EXAMPLE = "seed=range(0,10)"


def jobs(loader: ConfigLoader, params: Sequence[str], arguments: Sequence[str]) -> list[list[str]]:
    """The overrides of each job of the sweep that the sweeper's ``params`` and then the typed ``arguments`` describe.

    A job has the same overrides in the same order, with one value in place of each list of values. Raises ConfigError if a list
    is empty or its key applies to the whole sweep, and HydraException for ranges of real numbers, which only a search takes.
    """
    parser = OverridesParser.create(config_loader=loader)
    typed = parser.parse_overrides(list(arguments))
    check_repetitions(typed)
    overrides = effective(parser.parse_overrides(list(params)), typed)
    check(overrides, loader)
    check_number_of_runs(overrides)
    return [list(job) for job in itertools.product(*(texts_of(override, loader) for override in overrides))]


def effective(params: Sequence[Override], typed: Sequence[Override]) -> list[Override]:
    """``params`` and then ``typed``, without the params and the lists of values that a later override replaces.

    Hydra applies overrides one after the other, and a mapping such as ``optimizer={lr:0.1}`` changes what ``optimizer=sgd``
    chose. So an override only replaces another if both set the same key as a whole, and everything else stays.
    """
    left = [override for override in params if not any(_same_whole_key(override, other) for other in typed)]
    for index, override in enumerate(typed):
        later = [other for other in typed[index + 1 :] if other.type == OverrideType.CHANGE]
        if not (override.is_sweep_override() and any(_same_whole_key(override, other) for other in later)):
            left.append(override)
    return left


def check_repetitions(typed: Sequence[Override]) -> None:
    """Raise ConfigError for each key with several lists of values, of which only the last would count."""
    lists = [override for override in typed if override.is_sweep_override()]
    problems = []
    for index, override in enumerate(lists):
        later = next((other for other in lists[index + 1 :] if _same_whole_key(override, other)), None)
        if later is not None:
            both = [override.get_value_string(), later.get_value_string()]
            simple = all(isinstance(one.value(), ChoiceSweep) and "(" not in text for one, text in zip((override, later), both))
            description = f"{override.input_line} and {later.input_line} are two lists of values"
            fix = f"{override.get_key_element()}={','.join(both)}" if simple else str(later.input_line)
            problems.append(Problem(override.key_or_group, description, "one list", fix))
    if problems:
        raise ConfigError(problems)


def check_ranges(overrides: Sequence[Override]) -> None:
    """Raise ConfigError for each range that has no end, no step, or more than :data:`MAX_RUNS` values."""
    problems = []
    for override in overrides:
        sweep = override.value()
        if isinstance(sweep, RangeSweep):
            number = _length(sweep)
            if math.isnan(number):
                description = f"{override.get_value_string()} has no values"
                problems.append(Problem(override.key_or_group, description, "numbers and a step other than 0", EXAMPLE))
            elif number > MAX_RUNS:
                description = f"{override.get_value_string()} has {_counted(number)} values"
                problems.append(Problem(override.key_or_group, description, f"at most {MAX_RUNS:,}", EXAMPLE))
    if problems:
        raise ConfigError(problems)


def check_number_of_runs(overrides: Sequence[Override]) -> None:
    """Raise ConfigError if the lists of values stand for more than :data:`MAX_RUNS` runs."""
    lengths = {}
    for override in overrides:
        sweep = override.value()
        if isinstance(sweep, (ChoiceSweep, RangeSweep)):
            lengths[override.key_or_group] = len(sweep.list) if isinstance(sweep, ChoiceSweep) else int(_length(sweep))
    if (number := math.prod(lengths.values())) > MAX_RUNS:
        description = f"{number:,} runs ({' x '.join(f'{length:,}' for length in lengths.values())} values)"
        allowed = f"at most {MAX_RUNS:,} runs in a sweep; use several sweeps, or a search"
        raise ConfigError([Problem(", ".join(lengths), description, allowed)])


def check(overrides: Sequence[Override], loader: ConfigLoader) -> None:
    """Raise ConfigError for each list without a value, each range that is none or too long, and each list of values of a key
    that applies to the whole sweep.
    """
    check_ranges(overrides)
    problems = []
    for override in overrides:
        if not override.is_sweep_override():
            continue
        key, text = override.key_or_group, override.get_value_string()
        if key.replace("/", ".").partition(".")[0] in WHOLE:
            values = texts_of(override, loader) if override.is_discrete_sweep() else []
            commands = "; ".join(f"{command('train')} -m {value}" for value in values[:2]) + ("; …" if len(values) > 2 else "")
            problems.append(Problem(key, f"{text} is several values", "it applies to a whole sweep, so it takes one", commands))
        elif override.is_discrete_sweep() and not texts_of(override, loader):
            choices = all_choices(loader, key)
            allowed = f"choices: {', '.join(choices[:8])}{', …' * (len(choices) > 8)}" if choices else "at least one value"
            problems.append(Problem(key, f"{text} stands for no value", allowed))
    if problems:
        raise ConfigError(problems)


def texts_of(override: Override, loader: ConfigLoader) -> list[str]:
    """The overrides of single jobs that ``override`` stands for."""
    value = override.value()
    if not override.is_sweep_override():
        # A shuffled list would have another order each time it is read.
        shuffled = isinstance(value, list) and "shuffle(" in str(override.input_line)
        return [f"{override.get_key_element()}={override.get_value_element_as_str()}" if shuffled else str(override.input_line)]
    if not override.is_discrete_sweep():
        raise HydraException(f"a grid does not support sweep type : {override.value_type}")
    values = _matching(value, all_choices(loader, override.key_or_group)) if isinstance(value, Glob) else None
    return [f"{override.get_key_element()}={text}" for text in (override.sweep_string_iterator() if values is None else values)]


def written(value: Any) -> str:
    """A value of a configuration file as one types it on the command line; text stays as it is, so it may list values."""
    if isinstance(value, str):
        return value
    plain: Any = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return Override._get_value_element_as_str(plain)


def _same_whole_key(override: Override, other: Override) -> bool:
    return override.get_key_element() == other.get_key_element() and not _merges(override) and not _merges(other)


def _merges(override: Override) -> bool:
    """Whether the override merges a mapping into its key, at least in some jobs."""
    value: Any = override.value()
    return any(isinstance(each, dict) for each in (value.list if isinstance(value, ChoiceSweep) else [value]))


def _matching(pattern: Glob, choices: Sequence[str]) -> list[str]:
    """The choices that match. ``*`` does not match ``/``, so ``glob(*)`` leaves out the choices in folders."""

    def matches(choice: str, patterns: Sequence[str]) -> bool:
        return any(choice.count("/") == each.count("/") and fnmatch.fnmatchcase(choice, each) for each in patterns)

    return [choice for choice in choices if matches(choice, pattern.include) and not matches(choice, pattern.exclude)]


def _length(sweep: RangeSweep) -> float:
    """The number of values of ``sweep``: infinite if it has no end, and NaN if its bounds or its step are no usable numbers."""
    start, stop, step = float(sweep.start or 0), float(math.nan if sweep.stop is None else sweep.stop), float(sweep.step)
    if step == 0 or math.isnan(stop) or not math.isfinite(start) or not math.isfinite(step):
        return math.nan
    number = max(0.0, (stop - start) / step)
    return number if math.isinf(number) else math.ceil(number)


def _counted(number: float) -> str:
    return "endlessly many" if math.isinf(number) else f"{number:,.0f}"
