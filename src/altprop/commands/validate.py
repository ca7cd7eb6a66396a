"""What can be done with the parts of a run, beside training; each is a choice of the group ``task``."""

from __future__ import annotations

from altprop.training.parts import Parts


def validate(parts: Parts) -> None:
    """Say where the run of a valid configuration would lie. Writes nothing."""
    print(f"valid: {parts.name}, the run would lie in {parts.directory}")
