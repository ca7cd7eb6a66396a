"""Which estimators go with which units, modes and training options; what does not is said in one line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from altprop.nn.estimators.base import KEY, Estimator
from altprop.nn.estimators.rules import rules_for
from altprop.nn.units.hard import kind_of
from altprop.nn.units.levels import Kind
from altprop.problems import Problem


def problems(estimator: type[Estimator], config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
    """Problems of ``estimator`` with its own node ``config`` in the resolved configuration ``root``."""
    kind = _kind(root)
    scaled = bool(config.get("scaled", True))
    if kind is not None and kind not in estimator.fits:
        fitting = rules_for(kind, scaled)
        given = f"this rule is not defined for model/units={unit_name(root)}"
        yield Problem(KEY, given, f"these units take one of {', '.join(fitting)}", f"algorithm/estimator={fitting[0]}")
    if not scaled and not estimator.has_unscaled:
        names = ", ".join(rules_for(kind or "sign", scaled=False))
        allowed = f"this rule has the scaled mode only; the unscaled one is for {names}"
        yield Problem(f"{KEY}.scaled", "false", allowed, f"{KEY}.scaled=true")
    elif not scaled:
        yield from _loss_factors(root, "unscaled mode ignores the size of gradients")
    if config.get("legacy", False):
        yield from _loss_factors(root, "the legacy gradient is quadratic in the loss")


def _loss_factors(root: Mapping[str, Any], reason: str) -> Iterator[Problem]:
    """Options that multiply the loss and divide its gradient again, or add up gradients of parts: only linear rules allow it."""
    trainer = root.get("trainer") or {}
    if trainer.get("precision") == "fp16":
        yield Problem("trainer.precision", "fp16 scales the loss", f"{reason}: fp32, tf32 or bf16", "trainer.precision=bf16")
    if (trainer.get("accumulate") or 1) != 1:
        yield Problem("trainer.accumulate", str(trainer["accumulate"]), f"{reason}: only 1", "trainer.accumulate=1")


def _units(root: Mapping[str, Any]) -> Mapping[str, Any]:
    units = (root.get("model") or {}).get("units")
    return units if isinstance(units, Mapping) else {}


def _kind(root: Mapping[str, Any]) -> Kind | None:
    return kind_of(_units(root))


def unit_name(root: Mapping[str, Any]) -> str:
    """The choice of ``model/units`` that gives the configured hard units."""
    kind = str(_kind(root))
    return {"sign": "sign_step", "binary": "binary_step"}.get(kind, kind)
