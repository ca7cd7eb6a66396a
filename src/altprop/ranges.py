"""Ranges of configured values, as types for the signatures of constructors: ``width: PositiveInt = 64``.

A configuration is checked against these signatures before anything is built (:mod:`altprop.config.checks.types`), so a range is
stated once, where the argument is. Write ``Annotated[float, Ge(0), Lt(1)]`` for a range that has no name here. NaN and infinity
are refused for every number; an argument that means something by them says so with ``Annotated[float, AllowInfNan(True)]`` of
pydantic. This module imports nothing from altprop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen, Predicate

LARGEST = 10**9
"""The largest count: more images, units or steps than one computer can hold or do."""
LARGEST_FLOAT = 3.4e38
"""The largest number of fp32."""
LARGEST_COEFFICIENT = 1e10
"""The largest real number that an argument takes: more is a slip of the keyboard, not a coefficient."""


def is_line(text: str) -> bool:
    """Whether ``text`` is printable, not empty and on one line."""
    return bool(text.strip()) and text.isprintable()


def is_path(text: str) -> bool:
    """Whether ``text`` may name a file."""
    return bool(text.strip()) and "\0" not in text


def is_odd(number: int) -> bool:
    """Whether ``number`` is odd."""
    return number % 2 == 1


DESCRIPTIONS = {is_line: "one line of text", is_path: "a path", is_odd: "an odd whole number"}
"""What the messages call a value that fulfills a predicate."""

PositiveInt = Annotated[int, Ge(1), Le(LARGEST)]
NonNegativeInt = Annotated[int, Ge(0), Le(LARGEST)]
Seed = Annotated[int, Ge(0), Lt(2**63)]
Iterations = Annotated[int, Ge(1), Le(10_000)]
"""Iterations within one training step, which a signal cannot interrupt."""
Depth = Annotated[int, Ge(1), Le(10_000)]
"""A number of layers."""
NonNegativeDepth = Annotated[int, Ge(0), Le(1000)]
"""A number of layers that may be 0."""
Workers = Annotated[int, Ge(1), Le(1024)]
"""A number of processes or threads."""
ImageSize = Annotated[int, Ge(1), Le(16_384)]
"""A width or height in pixels."""
Padding = Annotated[int, Ge(0), Le(1024)]
"""Pixels added on each side."""
KernelSize = Annotated[int, Ge(1), Le(1023), Predicate(is_odd)]
"""The width and height of a convolution that keeps those of its input."""

FiniteFloat = Annotated[float, Ge(-LARGEST_COEFFICIENT), Le(LARGEST_COEFFICIENT)]
PositiveFloat = Annotated[float, Gt(0), Le(LARGEST_COEFFICIENT)]
NonNegativeFloat = Annotated[float, Ge(0), Le(LARGEST_COEFFICIENT)]
LearningRate = Annotated[float, Ge(0), Le(1000)]
PositiveLearningRate = Annotated[float, Gt(0), Le(1000)]
WidthFactor = Annotated[float, Gt(0), Le(100)]
"""A factor on the number of channels or units of all layers."""
WeightDecay = Annotated[float, Ge(0), Le(1000)]
Epsilon = Annotated[float, Ge(0), Le(1)]
"""A number that keeps a division finite, or the smallest change that counts."""
NudgeStrength = Annotated[float, Gt(0), Le(1000)]
"""The strength of a nudge of equilibrium propagation."""
Norm = Annotated[float, Gt(0), Le(10**6)]
"""A length of gradients."""
Probability = Annotated[float, Ge(0), Le(1)]
PositiveShare = Annotated[float, Gt(0), Le(1)]
Share = Annotated[float, Ge(0), Lt(1)]
"""A part of something, but not all of it."""

Text = Annotated[str, Predicate(is_line)]
FilePath = Annotated[str, Predicate(is_path)]

Table = Mapping[NonNegativeInt, NonNegativeFloat] | Sequence[Annotated[Sequence[NonNegativeFloat], MinLen(2), MaxLen(2)]]
"""Values that hold from 0-based epochs or steps on: a mapping, or ``[epoch, value]`` pairs in any order."""
Sparsity = Share | Mapping[str, Share]
"""The share of zeros: of all layers, or of each by role or name."""
