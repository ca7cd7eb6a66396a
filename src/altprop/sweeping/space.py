"""The search space: Hydra's ranges of values as Optuna's distributions, and the overrides that all trials share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from altprop.problems import ConfigError, Problem
from altprop.sweeping.grid import check_ranges, effective

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

SEED = "seed"
EXAMPLE = "'optimizer.lr=tag(log,interval(1e-4,1e-1))'"


@dataclass
class Space:
    """What a search tries.

    Args:
        searched: The distributions of the searched keys.
        words: The overrides of a trial in order, with None for those of searched keys and of a list of seeds.
        seeds: The seeds that each trial is repeated with; empty if there is no list of seeds.
    """

    searched: dict[str, BaseDistribution] = field(default_factory=dict)
    words: list[tuple[str, str | None]] = field(default_factory=list)
    seeds: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, overrides: Sequence[Override], params: Sequence[Override] = ()) -> Space:
        """The space of ``params`` and then ``overrides``, without those that a later one replaces.

        Raises ConfigError without a range to search.
        """
        space = cls()
        effective_overrides = effective(params, overrides)
        check_ranges(effective_overrides)
        for override in effective_overrides:
            key = override.get_key_element()
            if key == SEED and override.is_sweep_override():
                space.seeds = _seeds(override)
                space.words.append((key, None))
            elif override.is_sweep_override():
                space.searched[key] = _distribution(override)
                space.words.append((key, None))
            else:
                space.words.append((key, override.input_line))
        if not space.searched:
            raise ConfigError([Problem("hydra.sweeper.params", "nothing is searched", "a range of values", EXAMPLE)])
        return space

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        """The overrides of the trial with ``values``."""
        words = [(key, f"{key}={values[key]}" if text is None and key in values else text) for key, text in self.words]
        return [text for _, text in words if text is not None]

    def repetitions(self, values: Mapping[str, Any]) -> list[list[str]]:
        """The overrides of every run of the trial with ``values``: one for each seed."""
        return [self.overrides({**values, SEED: seed}) for seed in self.seeds] if self.seeds else [self.overrides(values)]

    def samples(self) -> Iterator[dict[str, Any]]:
        """Samples that contain every choice of every key and the low end of every range, in a fixed order."""
        choices = {key: getattr(one, "choices", None) or [one.low] for key, one in self.searched.items()}  # type: ignore[attr-defined]
        first = {key: values[0] for key, values in choices.items()}
        yield first
        for key, values in choices.items():
            yield from ({**first, key: value} for value in values[1:])


def _seeds(override: Override) -> list[str]:
    """The seeds in a list or range of them. Raises ConfigError for an interval, which has no list of values."""
    if isinstance(override.value(), IntervalSweep):
        allowed = "each trial is repeated with every seed, and their mean is maximized, so seeds are a list"
        raise ConfigError([Problem(SEED, f"{override.input_line} is an interval", allowed, "seed=0,1,2")])
    return list(dict.fromkeys(override.sweep_string_iterator()))


def _distribution(override: Override) -> BaseDistribution:
    """Integers for ``int(interval(1,9))`` and ``range(1,10)``, real numbers for ``interval``, choices for everything else."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    sweep: Any = override.value()
    try:
        if isinstance(sweep, IntervalSweep):
            kind: Any = IntDistribution if isinstance(sweep.start, int) else FloatDistribution
            return kind(sweep.start, sweep.end, log="log" in sweep.tags)
        if isinstance(sweep, RangeSweep):
            numbers = list(sweep.range())
            if numbers and numbers == sorted(numbers) and all(isinstance(number, int) for number in numbers):
                return IntDistribution(int(numbers[0]), int(numbers[-1]), step=int(sweep.step))
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    except ValueError as error:
        raise ConfigError([Problem(override.get_key_element(), str(error), "a range of values", EXAMPLE)]) from None
