"""Classes and functions that the tests of checks use as targets."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from altprop.problems import Problem


class Base:
    def __init__(self, *, depth: int = 1, loss: nn.Module | None = None) -> None:
        self.arguments = (depth, loss)


class Derived(Base):
    """Passes unknown arguments on to its base."""

    def __init__(self, widths: Sequence[int], mode: Literal["fast", "slow"] = "fast", **common: Any) -> None:
        super().__init__(**common)

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        if config["widths"] == []:
            yield Problem("dataset.widths", "empty", f"at least one width for {root['name']}")


class Picky:
    def __init__(self, rate: float) -> None:
        if rate < 0:
            raise ValueError("rate must not be negative")


def factory(size: int) -> nn.Linear:
    return nn.Linear(size, size)


def anything(**options: Any) -> Callable[[Tensor], Tensor]:
    raise NotImplementedError(options)
