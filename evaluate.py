"""Evaluate a trained run: ``python evaluate.py run=outputs/<name>/<key>``. See ``conf/evaluate.yaml``."""

from altprop.commands.entry import entry_point


def evaluate(config: object) -> None:
    """Load what an evaluation needs only now, so that ``--help`` answers at once."""
    from altprop.commands.evaluate import evaluate as run

    run(config)  # type: ignore[arg-type]


if __name__ == "__main__":
    entry_point("evaluate", evaluate)
