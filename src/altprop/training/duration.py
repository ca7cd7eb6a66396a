"""Lengths of training as strings with a unit: ``10ep`` epochs, ``500st`` steps, ``10%`` of the whole run."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

Unit = Literal["ep", "st", "%"]
FORMS = "a positive number with a unit: '10ep' (epochs), '500st' (steps) or '10%' (of the whole run)"

_PATTERN = re.compile(r"\s*(?P<value>\d+(?:\.\d+)?)\s*(?P<unit>ep|st|%)\s*")


@dataclass(frozen=True)
class Duration:
    """A length of training: ``value`` epochs, optimizer steps (mini-batches) or percent of the whole run."""

    value: float
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> Duration:
        """``"10ep"``, ``"0.5ep"``, ``"500st"`` or ``"10%"`` as a Duration. Raises ValueError with the allowed forms."""
        match = _PATTERN.fullmatch(str(text))
        if match is None:
            raise ValueError(f"{text!r} is not a duration; write {FORMS}")
        value = float(match["value"])
        unit: Unit = match["unit"]  # type: ignore[assignment]
        if value <= 0:
            raise ValueError(f"{text!r} is not a duration: it must be positive; write {FORMS}")
        if unit == "st" and not value.is_integer():
            raise ValueError(f"{text!r} is not a duration: steps are whole; write {FORMS}")
        if unit == "%" and value > 100:
            raise ValueError(f"{text!r} is not a duration: a share of the run is at most 100%; write {FORMS}")
        return cls(value, unit)

    def steps(self, steps_per_epoch: int, total_steps: int | None = None) -> int:
        """The length in steps, rounded to the nearest step and at least 1.

        ``total_steps`` is the length of the whole run. Raises ValueError for a percentage without it.
        """
        if self.unit == "st":
            return int(self.value)
        if self.unit == "ep":
            return max(1, round(self.value * steps_per_epoch))
        if total_steps is None:
            raise ValueError(f"'{self}' is a share of the whole run, so it cannot be the length of the run itself")
        return max(1, round(self.value / 100 * total_steps))

    def epochs(self, steps_per_epoch: int, total_steps: int | None = None) -> int:
        """The length in epochs, rounded up."""
        return math.ceil(self.steps(steps_per_epoch, total_steps) / steps_per_epoch)

    def __str__(self) -> str:
        return f"{int(self.value) if self.value.is_integer() else self.value}{self.unit}"
