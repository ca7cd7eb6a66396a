"""altprop: train deep nets with algorithms other than plain end-to-end backprop."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from altprop.api import ConfigError, Problem, Run, RunFailed, compose, evaluate, runs, sweep, train, validate

__version__ = "0.1.0"
__all__ = ["ConfigError", "Problem", "Run", "RunFailed", "compose", "evaluate", "runs", "sweep", "train", "validate"]


def __getattr__(name: str) -> Any:
    """Import the Python API when it is used, so that ``import altprop`` costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from altprop import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
