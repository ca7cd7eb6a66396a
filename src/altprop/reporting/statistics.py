"""Statistics over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.special import stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Statistic:
    """The values of one quantity over several runs.

    ``std`` is the sample standard deviation (n - 1); ``low`` and ``high`` are the ends of the 95 % interval of the mean under
    Student's t. All three are None for a single value, which says nothing about the spread.
    """

    count: int
    mean: float
    std: float | None = None
    low: float | None = None
    high: float | None = None

    def contains(self, value: float) -> bool | None:
        """Whether ``value`` is inside the interval; None if there is no interval."""
        return None if self.low is None or self.high is None else self.low <= value <= self.high


def statistic(values: Sequence[float], bounds: tuple[float, float] = (-math.inf, math.inf)) -> Statistic | None:
    """The mean, standard deviation and 95 % interval of ``values``; None if it is empty.

    The interval is cut off at ``bounds``, the range that the quantity can have. If any value is not finite, all results are NaN.
    """
    if not values:
        return None
    if len(values) == 1:
        return Statistic(1, values[0])
    if not all(map(math.isfinite, values)):
        return Statistic(len(values), math.nan, math.nan, math.nan, math.nan)
    mean, deviation = fmean(values), stdev(values)
    half = half_width(deviation, len(values))
    return Statistic(len(values), mean, deviation, max(mean - half, bounds[0]), min(mean + half, bounds[1]))


def half_width(deviation: float, count: int) -> float:
    """Half the width of the 95 % interval of a mean of ``count`` values, at least two, whose standard deviation is known."""
    return float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * deviation / math.sqrt(count)
