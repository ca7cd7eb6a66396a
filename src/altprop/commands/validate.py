"""``python train.py task=validate``: check a configuration without training."""

from __future__ import annotations

from altprop.training.parts import Parts


def validate(parts: Parts) -> None:
    """Print the directory that the run of a valid configuration would use. Writes nothing."""
    print(f"valid: {parts.name}, the run would be in {parts.directory}")
