"""``train.py``: check a configuration, build its parts and do what the group ``task`` says."""

from __future__ import annotations

from omegaconf import DictConfig

from altprop.problems import Problem


def check_task(config: DictConfig) -> list[Problem]:
    """Every problem of a training configuration."""
    from altprop.config.checks.validation import problems_of

    return problems_of(config)


def run_task(config: DictConfig) -> None:
    """Check ``config``, build its parts and hand them to the function that the group ``task`` names."""
    from altprop.config.build import build  # torch is imported here, and not before

    parts, task = build(config)
    task(parts)
