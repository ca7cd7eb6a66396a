"""``train.py``: check a configuration, build its parts and run the task that the group ``task`` names."""

from __future__ import annotations

from omegaconf import DictConfig

from altprop.problems import Problem


def check_task(config: DictConfig) -> list[Problem]:
    """Every problem of a training configuration."""
    from altprop.config.checks.validation import problems_of

    return problems_of(config)


def run_task(config: DictConfig) -> None:
    """Check ``config``, build its parts and pass them to the function that the group ``task`` names."""
    from altprop.config.build import build  # imports torch, which --help must not

    parts, task = build(config)
    task(parts)
