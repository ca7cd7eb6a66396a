"""What the name of a metric says. Imports no torch, so that reports and the console can ask."""

RESERVED = ("loss", "accuracy", "accuracy_top5", "learning_rate")
"""Names of metrics that every run may have; its own have others."""


def higher_is_better(name: str) -> bool:
    """Whether higher values of the metric ``name`` are better. Names of metrics that fall end in ``loss`` or ``error``."""
    return not name.endswith(("loss", "error"))
