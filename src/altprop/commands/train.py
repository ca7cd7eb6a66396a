"""``train.py``: check a configuration, build its parts and run the task that the group ``task`` names."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from altprop.problems import Problem


def check_task(config: DictConfig) -> list[Problem]:
    """Every problem of a training configuration."""
    from altprop.config.checks.validation import problems_of

    return problems_of(config)


def run_task(config: DictConfig) -> Path:
    """Check ``config``, build its parts and pass them to the function that the group ``task`` names.

    Returns the directory of the run, which exists if the task wrote something. The process is as before, so the next run in it
    is not influenced by this one.
    """
    from altprop.config.build import build  # imports torch, which --help must not
    from altprop.training.isolation import isolated

    with isolated():
        parts, task = build(config)
        task(parts)
    return parts.directory
