"""Which nudged phases there are, and how their contrast estimates a gradient (Laborieux et al. 2021, "symmetric" estimate)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NudgingName = Literal["one_sided", "random_sign", "symmetric", "five_phase"]

FREE = -1
"""Stands for the free state among the numbers of phases."""


@dataclass(frozen=True)
class Nudging:
    """``strengths`` of the nudged phases in units of beta, each started from the free state.

    The gradient is ``- sum coefficient / beta * (D(upper) - D(lower))`` over ``contrasts``, ``(coefficient, upper, lower)`` with
    numbers of phases, where ``D`` is the derivative of the primitive function. ``order`` is the power of beta that its bias
    falls with.
    """

    strengths: tuple[float, ...]
    contrasts: tuple[tuple[float, int, int], ...]
    order: int
    random_sign: bool = False

    def strength(self, phase: int) -> float:
        """Strength of ``phase`` in units of beta; 0 for :data:`FREE`."""
        return 0.0 if phase == FREE else self.strengths[phase]


NUDGINGS: dict[str, Nudging] = {
    "one_sided": Nudging((1.0,), ((1.0, 0, FREE),), order=1),
    "random_sign": Nudging((1.0,), ((1.0, 0, FREE),), order=1, random_sign=True),
    "symmetric": Nudging((1.0, -1.0), ((0.5, 0, 1),), order=2),
    # Fourth-order central difference, section "Extras".
    "five_phase": Nudging((1.0, -1.0, 2.0, -2.0), ((8 / 12, 0, 1), (-1 / 12, 2, 3)), order=4),
}
